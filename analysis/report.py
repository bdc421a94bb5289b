"""Write a study down: law.json, the figures, and report.md, in which every number has its unit and interval."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, json_values
from analysis.fitting import law_of
from analysis.runs_table import write_atomically
from analysis.study import Optimum, Prediction, Study, frontier_exponents, optimum
from analysis.uncertainty import Estimate

OVERHEAD = ("start", "data", "evaluation", "checkpoint")


def write(
    folder: Path | str,
    table: pd.DataFrame,
    study: Study,
    prediction: Prediction | None = None,
    measured_loss: float | None = None,
    timings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write law.json, figures (PNG and PDF) and report.md into `folder`; returns the paths, report.md last.

    prediction and measured_loss (nats per token) belong to a run that no fit has seen. timings: model_flops (FLOP),
    matmul_flops_per_second (FLOP/s, of all workers together), wall_seconds (of the sweep), run_seconds (that times the
    workers) and phase_seconds (phase -> seconds, summed over runs; start, data, evaluation and checkpoint among them).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    law_path, report_path = folder / "law.json", folder / "report.md"
    write_atomically(law_path, json_values.dumps(study).encode())
    drawn, paths = _draw(folder / "figures", table, study, prediction, measured_loss)
    sections = [
        _title(table, study),
        _held_out(prediction, measured_loss),
        _law(study),
        _approach_2(study),
        _extrapolation(study, prediction),
        _figures(drawn),
        _runs(table, study),
        _overhead(timings),
    ]
    write_atomically(report_path, "\n".join(section for section in sections if section).encode())
    return [law_path, *paths, report_path]


def _draw(
    folder: Path, table: pd.DataFrame, study: Study, prediction: Prediction | None, measured_loss: float | None
) -> tuple[list[tuple[str, str, str]], list[Path]]:
    """Figures as (file stem, title, how to read it), and every file written."""
    if study.flop_rule is None:
        return [], []
    held_out = (prediction.flops, measured_loss) if prediction and measured_loss else None
    level = f"{study.level:.0%}"
    wanted = [
        (
            "loss_against_compute",
            "Loss against compute",
            "Each dot is a fitted run. The line is the least loss the parametric law allows at each budget, the shade "
            f"its {level} interval (uncertainty of the constants only). Right of the dashed line everything is "
            "extrapolated.",
            lambda: figures.loss_against_compute(table, study, held_out=held_out),
        ),
        (
            "optimal_allocation",
            "Optimal size and tokens against compute",
            "How a budget is best split. Solid with shade: approach 3 with its interval; dashed with dotted limits: "
            "approach 2; stars: the valleys' optima with their intervals. Where the two approaches part, trust "
            "neither.",
            lambda: figures.optimal_allocation(table, study, target_flops=prediction.flops if prediction else None),
        ),
        (
            "prediction_against_measurement",
            "Prediction against measurement",
            f"Dots are fitted runs. The diamond is the held-out run, the bar its {level} predictive interval: the law "
            "is confirmed at this distance when the diamond lies on the bar. Dots that curve in the lower panel would "
            "mean that the law has the wrong shape.",
            lambda: figures.prediction_against_measurement(
                table, study, prediction=prediction, measured_loss=measured_loss
            ),
        ),
    ]
    if study.isoflop is not None:
        wanted.insert(
            0,
            (
                "isoflop_valleys",
                "IsoFLOP valleys",
                "Each curve is one compute budget: too small a model on the left, too few tokens on the "
                f"right. The star is the parabola's minimum with its {level} interval.",
                lambda: figures.isoflop_valleys(table, study),
            ),
        )
    paths = [path for name, _, _, draw in wanted for path in figures.save(draw(), folder / name)]
    return [(name, title, text) for name, title, text, _ in wanted], paths


def _title(table: pd.DataFrame, study: Study) -> str:
    experiments = ", ".join(sorted(set(table["experiment"].dropna()))) if "experiment" in table.columns else "table"
    law, fit = law_of(study.law.fit), study.law.fit
    return (
        f"# Scaling law of {experiments}\n\n"
        f"Law: `{law.formula}`, loss in nats per token, from {len(fit.used)} runs ({len(fit.left_out)} left out). "
        f"Intervals are {study.level:.0%} unless said otherwise. All numbers are in [law.json](law.json).\n"
    )


def _held_out(prediction: Prediction | None, measured: float | None) -> str:
    if prediction is None:
        return ""
    interval, level = prediction.loss_nats, f"{prediction.level:.0%}"
    lines = [
        "## Prediction of a run no fit has seen\n",
        "| quantity | value | unit |",
        "|---|---|---|",
        f"| params | {_count(prediction.params)} | parameters |",
        f"| tokens | {_count(prediction.tokens)} | tokens |",
        f"| compute | {prediction.flops:.4g} | FLOP |",
        f"| extrapolation | {prediction.extrapolation_factor:.3g} | times the largest fitted budget |",
        f"| predicted loss | {interval.value:.4f} | nats per token |",
        f"| {level} predictive interval | {interval.low:.4f} to {interval.high:.4f} | nats per token |",
    ]
    if measured is None:
        return "\n".join(lines) + "\n\nThe run has not been measured yet.\n"
    error = 100 * (interval.value / measured - 1)
    side = "above" if measured > interval.high else "below"
    verdict = "**inside** the interval" if interval.contains(measured) else f"**outside** the interval, {side} it"
    lines += [
        f"| measured loss | {measured:.4f} | nats per token |",
        f"| predicted minus measured | {interval.value - measured:+.4f} | nats per token |",
        f"| relative error | {error:+.2f} | % of the measured loss |",
    ]
    return "\n".join(lines) + (
        f"\n\nThe measured loss, {measured:.4f} nats per token, is {verdict}; the prediction is "
        f"off by {error:+.2f} % of it.\n"
    )


def _law(study: Study) -> str:
    law, fit = law_of(study.law.fit), study.law.fit
    name = "Approach 3: the parametric law" if law.name == "chinchilla" else "The parametric law"
    lines = [f"## {name}\n", f"`{law.formula}` ({law.citation}).\n", *_constants(study.law, study.level)]
    lines += [
        "",
        f"Objective {fit.objective}, summed over {len(fit.used)} points on log loss: "
        f"{fit.objective_value:.6g}. {fit.starts_at_optimum} of {fit.starts} starting points reached it; largest "
        f"gradient {fit.gradient_norm:.1e}; condition number {fit.condition_number:.3g}. Residual scale "
        f"{100 * fit.residual_scale:.3g} % of the loss. Intervals: {study.bootstraps} bootstrap resamples of the "
        f"points, percentiles, seed {study.seed}.",
        "",
    ]
    lines += [
        f"- **{name} is weakly identified**: {reason}. Do not read it on its own."
        for name, reason in study.law.weakly_identified.items()
    ]
    if study.flop_rule is not None:
        params, tokens = frontier_exponents(study)
        rule = study.flop_rule
        lines += [
            f"- The table counts compute as `{rule}` (params and tokens as counts, flops in FLOP; largest error "
            f"{100 * rule.largest_error:.2g} %).",
            f"- Compute-optimal params grow as flops to the power {params}, tokens to the power {tokens}.",
        ]
    return "\n".join(lines) + "\n"


def _constants(estimate: Estimate, level: float) -> list[str]:
    lines = [f"| constant | value | {level:.0%} interval | unit | meaning |", "|---|---|---|---|---|"]
    for parameter in law_of(estimate.fit).parameters:
        interval = estimate.intervals[parameter.name]
        lines.append(
            f"| {parameter.name} | {interval.value:.4g} | {interval.low:.4g} to {interval.high:.4g} | "
            f"{parameter.unit} | {parameter.meaning} |"
        )
    return lines


def _approach_2(study: Study) -> str:
    if study.isoflop is None:
        return f"## Approach 2: isoFLOP valleys\n\nNot fitted. {study.isoflop_note}\n"
    isoflop = study.isoflop
    lines = [
        "## Approach 2: isoFLOP valleys\n",
        "A parabola in log(params) per budget; its minimum is the optimum.\n",
        "| budget (FLOP) | runs | optimal params (parameters) | optimal tokens (tokens) | loss there (nats per "
        "token) | inside the sizes trained |",
        "|---|---|---|---|---|---|",
    ]
    for valley in isoflop.valleys:
        inside = "yes" if valley.inside_range else "**no**: the parabola is extrapolated"
        lines.append(
            f"| {valley.budget_flops:.4g} | {valley.runs} | {valley.params} | {valley.tokens} | "
            f"{valley.loss_nats} | {inside} |"
        )
    lines.append("")
    for name, law in (("params", isoflop.params), ("tokens", isoflop.tokens)):
        lines.append(
            f"- optimal {name} = scale * flops^exponent: exponent {law.intervals['exponent']} (no unit), "
            f"scale {law.intervals['scale']} ({name} at 1 FLOP)"
        )
    if isoflop.loss is not None:
        loss = isoflop.loss.intervals
        lines.append(
            f"- loss at the optimum = E + scale / flops^exponent: E {loss['E']} nats per token, scale "
            f"{loss['scale']} nats per token, exponent {loss['exponent']} (no unit)"
        )
    else:
        lines.append(f"- loss at the optimum against flops: not fitted ({isoflop.loss_note})")
    lines.append(
        f"- intervals: {study.bootstraps} resamples of the runs within each budget, {isoflop.dropped_draws} "
        "of them dropped because fewer than two budgets kept a minimum"
    )
    lines += [f"- left out: {item.run}: {item.reason}" for item in isoflop.left_out]
    return "\n".join(lines) + "\n"


def _extrapolation(study: Study, prediction: Prediction | None) -> str:
    if study.flop_rule is None:
        return ""
    budgets = sorted(
        {study.largest_flops, 10 * study.largest_flops, 100 * study.largest_flops}
        | ({prediction.flops} if prediction else set())
    )
    approaches = (2, 3) if study.isoflop is not None else (3,)
    lines = [
        "## Compute-optimal runs\n",
        "Intervals hold the uncertainty of the constants, not the noise of a run, and assume that the law goes on.\n",
        "| budget (FLOP) | times the largest fitted | approach | params (parameters) | tokens (tokens) | "
        "tokens per parameter | loss (nats per token) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_optimum_row(optimum(study, flops, approach=approach)) for flops in budgets for approach in approaches]
    return "\n".join(lines) + "\n"


def _optimum_row(best: Optimum) -> str:
    return (
        f"| {best.flops:.4g} | {best.extrapolation_factor:.3g} | {best.approach} | {best.params} | {best.tokens} | "
        f"{best.tokens_per_param} | {best.loss_nats or 'not fitted'} |"
    )


def _figures(drawn: list[tuple[str, str, str]]) -> str:
    if not drawn:
        return ""
    lines = ["## Figures\n"]
    for name, title, text in drawn:
        lines += [f"### {title}\n", f"![{title}](figures/{name}.png)\n", f"{text} [PDF](figures/{name}.pdf)\n"]
    return "\n".join(lines)


def _runs(table: pd.DataFrame, study: Study) -> str:
    lines = [
        "## Runs\n",
        f"{len(table)} rows in the table: {len(study.law.fit.used)} fitted, {len(study.left_out)} left out.\n",
    ]
    units = {"params": "parameters", "tokens": "tokens", "flops": "FLOP", "loss_nats": "nats per token"}
    lines += [f"- fitted {name}: {low:.4g} to {high:.4g} {units[name]}" for name, (low, high) in study.ranges.items()]
    if study.left_out:
        lines += ["", "| run left out | reason |", "|---|---|"]
        lines += [f"| {item.run} | {item.reason} |" for item in study.left_out]
    return "\n".join(lines) + "\n"


def _overhead(timings: Mapping[str, Any] | None) -> str:
    if timings is None:
        return ""
    ideal = timings["model_flops"] / timings["matmul_flops_per_second"]
    wall, run_seconds, phases = timings["wall_seconds"], timings["run_seconds"], timings["phase_seconds"]
    overhead = sum(phases[phase] for phase in OVERHEAD)
    lines = [
        "## Time and overhead\n",
        f"- model FLOPs of the runs: {timings['model_flops']:.4g} FLOP",
        f"- best matrix-product rate, all workers: {timings['matmul_flops_per_second']:.4g} FLOP/s",
        f"- time at that rate: {ideal:.1f} s; wall time of the sweep: {wall:.1f} s, {wall / ideal:.2f} times that",
        f"- {', '.join(OVERHEAD)} together: {overhead:.1f} s, {100 * overhead / run_seconds:.1f} % of the "
        f"workers' {run_seconds:.1f} s\n",
        "| phase | seconds, summed over runs | share of the workers' time |",
        "|---|---|---|",
    ]
    rest = run_seconds - sum(phases.values())
    lines += [
        f"| {phase} | {seconds:.1f} | {100 * seconds / run_seconds:.1f} % |"
        for phase, seconds in [*phases.items(), ("no run, or one that is not done", rest)]
    ]
    return "\n".join(lines) + "\n"


def _count(value: float) -> str:
    return f"{value:,.0f}"

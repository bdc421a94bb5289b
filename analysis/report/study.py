"""Write a study down: law.json, the figures, and report.md, in which every number has its unit and interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import figures, json_values
from analysis.files import write_atomically
from analysis.intervals import Estimate
from analysis.report import beyond_the_runs
from analysis.report.captions import Drawing, drawings_of
from analysis.runs_table import unit_of
from analysis.studies import Backtest, Prediction, Score, Study, frontier_exponents

OVERHEAD = ("start", "data", "evaluation", "checkpoint")


def write_study(
    folder: Path | str,
    table: pd.DataFrame,
    study: Study,
    scored: Prediction | Score | None = None,
    timings: Mapping[str, Any] | None = None,
    backtest: Backtest | None = None,
) -> list[Path]:
    """Write law.json, figures (PNG and PDF) and report.md into `folder`; returns the paths, report.md last.

    scored: the prediction of a run that no fit has seen, or its score once the run is measured. timings: model_flops
    and executed_flops (FLOP), matmul_flops_per_second (FLOP/s, of all workers together), wall_seconds (of the sweep),
    run_seconds (that times the workers) and phase_seconds (phase -> seconds, summed over runs; start, data, evaluation
    and checkpoint among them).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    law_path, report_path = folder / "law.json", folder / "report.md"
    write_atomically(law_path, json_values.dumps(study).encode())
    drawings = drawings_of(table, study, scored, backtest)
    paths = [path for drawing in drawings for path in figures.save(drawing.draw(), folder / "figures" / drawing.name)]
    prediction = scored.prediction if isinstance(scored, Score) else scored
    sections = [
        _title(table, study),
        beyond_the_runs.held_out(scored),
        law_section(study),
        _approach_2(study),
        beyond_the_runs.optima(study, prediction),
        beyond_the_runs.departures(study),
        beyond_the_runs.backtest(backtest),
        _figures(drawings),
        _runs(table, study),
        _overhead(timings),
    ]
    write_atomically(report_path, "\n".join(section for section in sections if section).encode())
    return [law_path, *paths, report_path]


def _title(table: pd.DataFrame, study: Study) -> str:
    experiments = ", ".join(sorted(set(table["experiment"].dropna()))) if "experiment" in table.columns else "table"
    law, fit = study.law.fit.law, study.law.fit
    return (
        f"# Scaling law of {experiments}\n\n"
        f"Law: `{law.formula}`, {law.output} in {unit_of(law.output) or 'its own unit'}, from {len(fit.used)} runs "
        f"({len(fit.left_out)} left out). "
        f"Intervals are {study.level:.0%} unless said otherwise. All numbers are in [law.json](law.json).\n"
    )


def law_section(study: Study) -> str:
    """The law, its constants and how well the runs determine them."""
    law, fit = study.law.fit.law, study.law.fit
    name = "Approach 3: the parametric law" if law.name == "chinchilla" else "The parametric law"
    lines = [f"## {name}\n", f"`{law.formula}` ({law.citation}).\n", *constants(study.law, study.level)]
    logarithmic = law.residual == "log"
    size = f"{100 * fit.residual_scale:.3g} %" if logarithmic else f"{fit.residual_scale:.3g} {unit_of(law.output)}"
    lines += [
        "",
        f"Objective {fit.objective}, summed over {len(fit.used)} points on {'the log of ' if logarithmic else ''}"
        f"{law.output}: {fit.objective_value:.6g}. {fit.starts_at_optimum} of {fit.starts} starting points reached it; "
        f"largest gradient {fit.gradient_norm:.1e}; condition number {fit.condition_number:.3g}. "
        f"Residual scale {size}. Intervals: {study.law.method}.",
        "",
    ]
    lines += [
        f"- **{name} is weakly identified**: {reason}. Do not read it on its own."
        for name, reason in study.weakly_identified.items()
    ]
    if not study.optima_note:
        params, tokens = frontier_exponents(study)
        rule = study.flop_rule
        lines += [
            f"- The table counts compute as `{rule}` (params and tokens as counts, flops in FLOP; largest error "
            f"{100 * rule.largest_error:.2g} %).",
            f"- Compute-optimal params grow as flops to the power {params}, tokens to the power {tokens}.",
        ]
    return "\n".join(lines) + "\n"


def constants(estimate: Estimate, level: float) -> list[str]:
    """A Markdown table of the law's constants."""
    lines = [f"| constant | value | {level:.0%} interval | unit | meaning |", "|---|---|---|---|---|"]
    for parameter in estimate.fit.law.parameters:
        interval = estimate.intervals[parameter.name]
        lines.append(
            f"| {parameter.name} | {interval.value:.4g} | {interval.low:.4g} to {interval.high:.4g} | "
            f"{parameter.unit} | {parameter.meaning} |"
        )
    lines += [f"| {name} | {value:.4g} | held | | |" for name, value in estimate.fit.law.fixed]
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


def _figures(drawings: Sequence[Drawing]) -> str:
    if not drawings:
        return ""
    lines = ["## Figures\n"]
    for drawn in drawings:
        name, title = drawn.name, drawn.title
        lines += [f"### {title}\n", f"![{title}](figures/{name}.png)\n", f"{drawn.text} [PDF](figures/{name}.pdf)\n"]
    return "\n".join(lines)


def _runs(table: pd.DataFrame, study: Study) -> str:
    lines = [
        "## Runs\n",
        f"{len(table)} rows in the table: {len(study.law.fit.used)} fitted, {len(study.left_out)} left out.\n",
    ]
    lines += [
        f"- fitted {name}: {low:.4g} to {high:.4g} {unit_of(name)}".rstrip()
        for name, (low, high) in study.ranges.items()
    ]
    if study.left_out:
        lines += ["", "| run left out | reason |", "|---|---|"]
        lines += [f"| {item.run} | {item.reason} |" for item in study.left_out]
    return "\n".join(lines) + "\n"


def _overhead(timings: Mapping[str, Any] | None) -> str:
    if timings is None:
        return ""
    ideal = timings["executed_flops"] / timings["matmul_flops_per_second"]
    wall, run_seconds, phases = timings["wall_seconds"], timings["run_seconds"], timings["phase_seconds"]
    overhead = sum(phases[phase] for phase in OVERHEAD)
    lines = [
        "## Time and overhead\n",
        f"- model FLOPs of the runs: {timings['model_flops']:.4g} FLOP; matrix products executed for them: "
        f"{timings['executed_flops']:.4g} FLOP",
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

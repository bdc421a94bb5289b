"""The sections of report.md on runs that were not fitted: predictions, optima, departures from them, back-tests."""

from analysis.runs_table import unit_of
from analysis.studies import Backtest, Optimum, Prediction, Score, Study, cost_of_departing, optimum


def held_out(scored: Prediction | Score | None) -> str:
    """A prediction, or how it came out: nothing without one."""
    if scored is None:
        return ""
    prediction = scored.prediction if isinstance(scored, Score) else scored
    unit = prediction.unit
    lines = ["## Prediction of a run no fit has seen\n", "| quantity | value | unit |", "|---|---|---|"]
    lines += [f"| {name} | {_count(value)} | {unit_of(name)} |" for name, value in prediction.inputs.items()]
    if prediction.flops is not None:
        lines.append(f"| compute | {prediction.flops:.4g} | FLOP |")
    lines += [
        f"| extrapolation | {prediction.reach.factor:.3g} | times the fitted {prediction.reach.quantity} |",
        f"| predicted {prediction.output} | {prediction.value:.4f} | {unit} |",
        f"| {prediction.level:.0%} predictive interval | {prediction.low:.4f} to {prediction.high:.4f} | {unit} |",
    ]
    ends = [f"**The run {prediction.reach.warning}.**"] if prediction.reach.warning else []
    if not isinstance(scored, Score):
        return "\n".join([*lines, "", *ends, "The run has not been measured yet."]) + "\n"
    measured, error = scored.measured, 100 * scored.relative_error
    side = "above" if measured > prediction.high else "below"
    verdict = "**inside** the interval" if scored.inside else f"**outside** the interval, {side} it"
    if prediction.measured_before:
        ends.append("**The run had been measured when this was written: no test.**")
    lines += [
        f"| measured {prediction.output} | {measured:.4f} | {unit} |",
        f"| predicted minus measured | {scored.error:+.4f} | {unit} |",
        f"| relative error | {error:+.2f} | % of what was measured |",
        "",
        f"The measured {prediction.output}, {measured:.4f} {unit}, is {verdict}; the prediction is off by "
        f"{error:+.2f} % of it.",
    ]
    return "\n".join([*lines, *ends]) + "\n"


def optima(study: Study, prediction: Prediction | None) -> str:
    """Compute-optimal runs at the largest fitted budget, 10 and 100 times it, and the prediction's; nothing if none."""
    if study.optima_note:
        return ""
    budgets = {study.largest_flops, 10 * study.largest_flops, 100 * study.largest_flops}
    if prediction is not None and prediction.flops is not None:
        budgets.add(prediction.flops)
    approaches = (2, 3) if study.isoflop is not None else (3,)
    lines = [
        "## Compute-optimal runs\n",
        "Intervals hold the uncertainty of the constants, not the noise of a run, and assume that the law goes on.\n",
        "| budget (FLOP) | times the largest fitted | approach | params (parameters) | tokens (tokens) | "
        "tokens per parameter | loss (nats per token) |",
        "|---|---|---|---|---|---|---|",
    ]
    found = [optimum(study, flops, approach=approach) for flops in sorted(budgets) for approach in approaches]
    lines += [_optimum_row(best) for best in found]
    warned = {best.flops: best.reach.warning for best in found if best.reach.warning}
    lines += ["", *(f"- **{flops:.4g} FLOP {warning}.**" for flops, warning in warned.items())]
    return "\n".join(lines) + "\n"


def _optimum_row(best: Optimum) -> str:
    factor = f"{best.reach.factor:.3g}"
    return (
        f"| {best.flops:.4g} | {f'**{factor}**' if best.reach.warning else factor} | {best.approach} | {best.params} | "
        f"{best.tokens} | {best.tokens_per_param} | {best.loss_nats or 'not fitted'} |"
    )


def departures(study: Study) -> str:
    """What it costs to train another size than the optimum's at the largest fitted budget; nothing if there is none."""
    if study.optima_note:
        return ""
    lines = [
        f"## The cost of another size at {study.largest_flops:.4g} FLOP\n",
        "A smaller model is over-trained, a larger one under-trained. Compute is what brings that size to the loss of "
        "the optimum.\n",
        "| times the optimal params | tokens per parameter | loss above the optimum's (nats per token) | "
        "compute (times the budget) |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {away.factor:g} | {away.tokens_per_param:.3g} | {away.loss_penalty} | {away.compute} |"
        for away in cost_of_departing(study, study.largest_flops)
    ]
    return "\n".join(lines) + "\n"


def backtest(backtest: Backtest | None) -> str:
    """A back-test, one line a cut; nothing without one."""
    if backtest is None:
        return ""
    lines = [
        "## Back-test\n",
        f"The law fitted to the runs below each cut of {backtest.by} and scored on the others.\n",
        f"| fitted below | fitted runs | scored runs | furthest, times the largest fitted | mean absolute error "
        f"({backtest.unit or backtest.output}) | relative | bias | inside the {backtest.level:.0%} interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cut in backtest.cuts:
        numbers = (
            f"{cut.mean_absolute_error:.4g} | {100 * cut.mean_relative_error:.2f} % | {cut.bias:+.4g} | "
            f"{100 * cut.hit_rate:.0f} %"
            if not cut.reason
            else f"no fit: {cut.reason} | - | - | -"
        )
        lines.append(f"| {cut.below:.4g} | {cut.fitted} | {len(cut.runs)} | {cut.furthest:.3g} | {numbers} |")
    return "\n".join(lines) + "\n"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"

"""What the verbs print: constants, optima, predictions and back-tests as tables for a terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from analysis.compute import FlopRule
from analysis.intervals import Estimate, Interval
from analysis.runs_table import unit_of
from analysis.studies import (
    Backtest,
    Optimum,
    Prediction,
    Study,
    cost_of_departing,
    frontier_exponents,
    lifetime_optimum,
    optimum,
)

MOST_LEFT_OUT = 20


def study(found: Study, console: Console) -> None:
    """Print a study's constants, its fit's condition, and every run left out with the reason."""
    law, result = found.law.fit.law, found.law.fit
    constants = Table(
        "constant", "value", f"{found.level:.0%} interval", "unit", title=law.formula, title_justify="left"
    )
    for parameter in law.parameters:
        interval = found.law.intervals[parameter.name]
        ends = f"{interval.low:.4g} to {interval.high:.4g}"
        constants.add_row(parameter.name, f"{interval.value:.5g}", ends, parameter.unit)
    for name, value in law.fixed:
        constants.add_row(name, f"{value:.5g}", "held", "")
    console.print(constants)
    unit = "%" if law.residual == "log" else unit_of(law.output)
    size = f"{100 * result.residual_scale:.3g} %" if unit == "%" else f"{result.residual_scale:.3g} {unit}".strip()
    scale = "" if result.scale is None else f"; fitted scale {result.scale:.4g}"
    _line(
        console,
        f"objective {result.objective}: {result.objective_value:.8g} over {len(result.used)} points; "
        f"{result.starts_at_optimum} of {result.starts} starts reached it{scale}; residual scale {size}; "
        f"condition number {result.condition_number:.3g}; intervals {found.law.method}",
    )
    for name, reason in found.weakly_identified.items():
        console.print(f"[bold]{name} is weakly identified[/bold]: {reason}", highlight=False)
    for item in found.left_out[:MOST_LEFT_OUT]:
        _line(console, f"left out {item.run}: {item.reason}")
    if len(found.left_out) > MOST_LEFT_OUT:
        _line(console, f"left out {len(found.left_out) - MOST_LEFT_OUT} more; --json has them all")


def optima(
    found: Study,
    console: Console,
    budgets: Sequence[float] = (),
    rule: FlopRule | None = None,
    hyperparameters: Sequence[Estimate] = (),
) -> None:
    """Print optima at the largest fitted budget, ten times it, and `budgets`, and what it costs to leave the last."""
    params, tokens = frontier_exponents(found, rule)
    counted = rule or found.flop_rule
    error = f" (read off the runs, largest error {counted.largest_error:.2%})" if counted.largest_error > 5e-5 else ""
    _line(console, f"{counted}{error}; optimal params ~ flops^{params}, tokens ~ flops^{tokens}")
    approaches = (3,)
    if found.isoflop is None:
        _line(console, f"approach 2 not fitted: {found.isoflop_note}")
    elif rule is None:
        approaches = (2, 3)
    flops = sorted({found.largest_flops, 10 * found.largest_flops, *budgets})
    rows = [
        [
            optimum(found, budget, approach=a, rule=rule, hyperparameters=hyperparameters if a == 3 else ())
            for a in approaches
        ]
        for budget in flops
    ]
    console.print(_optima_table(rows, found.level))
    for best in rows:
        if best[-1].reach.warning:
            console.print(f"[bold]{best[-1].flops:.4g} FLOP[/bold] {best[-1].reach.warning}", highlight=False)
    _departures(found, console, flops[-1], rule)


def lifetime(found: Study, console: Console, loss: float, served: float, rule: FlopRule) -> None:
    """Print the cheapest run of a quality, training and serving together."""
    best = lifetime_optimum(found, loss, served, rule)
    table = Table(
        "quantity",
        "cheapest over its life",
        "cheapest to train",
        title=f"loss {loss:g} nats per token, {served:.4g} tokens served; {best.level:.0%} intervals of the constants",
        title_justify="left",
    )
    table.add_row("parameters", cell(best.params), cell(best.training_params))
    table.add_row("training tokens", cell(best.tokens), cell(best.training_tokens))
    table.add_row("training FLOP", cell(best.training_flops), "")
    table.add_row("training and serving FLOP", cell(best.total_flops), "")
    table.add_row("share of all FLOP saved", cell(best.saving), "")
    console.print(table)
    if best.reach.warning:
        console.print(f"[bold]this run[/bold] {best.reach.warning}", highlight=False)


def prediction(found: Prediction, console: Console) -> None:
    """Print a prediction, what it rests on, and how far it reaches."""
    inputs = ", ".join(f"{name} {value:.6g}" for name, value in found.inputs.items())
    _line(console, f"{found.law}, {found.points} points, {found.left_out} left out; at {inputs}")
    console.print(f"[bold]{found.output} {found}[/bold]", highlight=False)
    if found.reach.warning:
        console.print(f"[bold]this run[/bold] {found.reach.warning}", highlight=False)
    if found.measured_before:
        console.print("[bold]the run has been measured already[/bold]: this is no test of the law", highlight=False)


def backtest(found: Backtest, console: Console) -> None:
    """Print a back-test, one line a cut."""
    output = f"{found.output} ({found.unit})" if found.unit else found.output
    table = Table(
        f"below\n{found.by}",
        "runs\nfitted",
        "runs\nscored",
        "times\nbeyond",
        "mean\nerror",
        "relative",
        "bias",
        f"inside\n{found.level:.0%}",
        title=f"back-test of {found.law.name} on {output}, {found.objective}: absolute error above each cut",
        title_justify="left",
    )
    for cut in found.cuts:
        if cut.reason:
            table.add_row(f"{cut.below:.4g}", str(cut.fitted), "", f"{cut.furthest:.3g}", "no fit")
            continue
        table.add_row(
            f"{cut.below:.4g}",
            str(cut.fitted),
            str(len(cut.runs)),
            f"{cut.furthest:.3g}",
            f"{cut.mean_absolute_error:.3g}",
            f"{cut.mean_relative_error:.2%}",
            f"{cut.bias:+.3g}",
            f"{cut.hit_rate:.0%}",
        )
    console.print(table)
    for cut in found.cuts:
        if cut.reason:
            _line(console, f"no fit below {cut.below:.4g}: {cut.reason}")


def cell(interval: Interval | None) -> str:
    """An interval in two lines of a table."""
    return "not fitted" if interval is None else f"{interval.value:.4g}\n{interval.low:.4g} to {interval.high:.4g}"


def _optima_table(rows: Sequence[Sequence[Optimum]], level: float) -> Table:
    table = Table(
        "budget",
        "quantity",
        *(f"approach {best.approach}" for best in rows[0]),
        title_justify="left",
        title=f"compute-optimal runs, {level:.0%} intervals of the constants",
    )
    for best in rows:
        lines = {
            "parameters": [run.params for run in best],
            "tokens": [run.tokens for run in best],
            "tokens per parameter": [run.tokens_per_param for run in best],
            "nats per token": [run.loss_nats for run in best],
        }
        for name in best[-1].hyperparameters:
            lines[name] = [run.hyperparameters.get(name) for run in best]
        head = f"{best[0].flops:.4g} FLOP\n{best[0].reach.factor:.3g} x the largest"
        for name, intervals in lines.items():
            table.add_row(head, name, *map(cell, intervals), end_section=name == list(lines)[-1])
            head = ""
    return table


def _departures(found: Study, console: Console, flops: float, rule: FlopRule | None) -> None:
    table = Table(
        "times the\noptimal params",
        "tokens per\nparameter",
        "loss above the optimum's\n(nats per token)",
        "compute for the\noptimum's loss",
        title=f"the cost of another size at {flops:.4g} FLOP, {found.level:.0%} intervals",
        title_justify="left",
    )
    for away in cost_of_departing(found, flops, rule=rule):
        compute = _times(away.compute.value)
        if away.compute.low != away.compute.high:
            compute += f"\n{_times(away.compute.low)} to {_times(away.compute.high)}"
        table.add_row(f"{away.factor:g}", f"{away.tokens_per_param:.3g}", cell(away.loss_penalty), compute)
    console.print(table)


def _times(value: float) -> str:
    return "none is enough" if value == float("inf") else f"{value:.4g} x"


def _line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)

"""The `isoflop fit` verb: fit a law to any table of runs from the command line."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from analysis import json_values
from analysis.fitting import FitError, Objective, law_of
from analysis.laws import find
from analysis.runs_table import COLUMNS, adopt, read_file, write_atomically
from analysis.study import Study, fit_table, frontier_exponents, optimum
from analysis.uncertainty import Interval


def fit(
    table: tyro.conf.Positional[Path],
    *,
    law: str = "chinchilla",
    params_column: str = "params",
    tokens_column: str = "tokens",
    loss_column: str = "loss_nats",
    flops_column: str | None = None,
    budget_column: str | None = None,
    json: Path | None = None,
    level: float = 0.9,
    bootstraps: int = 1000,
    seed: int = 0,
    objective: Literal["huber", "least_squares"] = "huber",
    delta: float = 1e-3,
    budgets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOP")] = (),
) -> None:
    """Fit a scaling law to a table of runs, with bootstrap intervals, and print it.

    Other columns are used when they carry the runs table's own names (run, status, held_out, seed, family, flops,
    budget_flops). Without FLOPs, runs are priced at 6 * params * tokens; without budgets, approach 2 is not fitted.

    Args:
        table: CSV or Parquet file, one row a run.
        law: name of the law.
        params_column: column of parameter counts.
        tokens_column: column of training tokens.
        loss_column: column of held-out loss, in nats per token.
        flops_column: column of training FLOPs.
        budget_column: column of compute budgets in FLOP, equal for all runs of one budget.
        json: file that gets everything that was found, as JSON.
        level: share of the distribution inside each interval.
        bootstraps: number of resamples.
        seed: seed of the resamples.
        objective: loss of a residual of log loss; the two have different optima.
        delta: residual of log loss where huber turns from square to linear.
        budgets: compute budgets in FLOP to find the optimum at, next to the largest fitted and ten times that.
    """
    frame, wanted = read_file(table), find(law)
    named = {
        "params": params_column,
        "tokens": tokens_column,
        "loss_nats": loss_column,
        "flops": flops_column,
        "budget_flops": budget_column,
    }
    columns = {column.name: column.name for column in COLUMNS if column.name in frame.columns}
    needed = (*wanted.inputs, wanted.output)
    optional = {"params", "tokens", "loss_nats"} - set(needed)  # have a default name, which need not be there
    columns |= {
        name: source
        for name, source in named.items()
        if source is not None and (source in frame.columns or name not in optional)
    }
    if delta <= 0:
        raise FitError(f"delta = {delta:g}: must be positive. Fix: use 1e-3.")
    study = fit_table(
        adopt(frame, columns, needed),
        law=wanted,
        level=level,
        bootstraps=bootstraps,
        seed=seed,
        objective=Objective(objective, delta if objective == "huber" else None),
    )
    show(study, Console(), budgets)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json, json_values.dumps(study).encode())


def show(study: Study, console: Console, budgets: tuple[float, ...] = ()) -> None:
    """Print a study: constants, what was left out, optima at the largest fitted budget, ten times it, and `budgets`."""
    law, result = law_of(study.law.fit), study.law.fit
    level = f"{study.level:.0%} interval"
    constants = Table("constant", "value", level, "unit", title=law.formula, title_justify="left")
    for parameter in law.parameters:
        interval = study.law.intervals[parameter.name]
        constants.add_row(
            parameter.name, f"{interval.value:.5g}", f"{interval.low:.4g} to {interval.high:.4g}", parameter.unit
        )
    console.print(constants)
    console.print(
        f"objective {result.objective}: {result.objective_value:.8g} over {len(result.used)} points; "
        f"{result.starts_at_optimum} of {result.starts} starts reached it; residual scale "
        f"{100 * result.residual_scale:.3g} %; condition number {result.condition_number:.3g}",
        highlight=False,
    )
    for name, reason in study.law.weakly_identified.items():
        console.print(f"[bold]{name} is weakly identified[/bold]: {reason}", highlight=False)
    for item in study.left_out:
        console.print(f"left out {item.run}: {item.reason}", highlight=False, markup=False)
    if study.flop_rule is None:
        return
    _show_optima(study, console, budgets)


def _show_optima(study: Study, console: Console, budgets: tuple[float, ...]) -> None:
    params, tokens = frontier_exponents(study)
    console.print(
        f"{study.flop_rule}; optimal params ~ flops^{params}, tokens ~ flops^{tokens}", highlight=False, markup=False
    )
    if study.isoflop is None:
        console.print(f"approach 2 not fitted: {study.isoflop_note}", highlight=False, markup=False)
    approaches = (2, 3) if study.isoflop is not None else (3,)
    optima = Table(
        "budget",
        "quantity",
        *(f"approach {approach}" for approach in approaches),
        title_justify="left",
        title=f"compute-optimal runs, {study.level:.0%} intervals of the constants",
    )
    for flops in sorted({study.largest_flops, 10 * study.largest_flops, *budgets}):
        best = [optimum(study, flops, approach=approach) for approach in approaches]
        head = f"{flops:.4g} FLOP\n{best[0].extrapolation_factor:.3g} x the largest"
        for name, unit in (
            ("params", "parameters"),
            ("tokens", "tokens"),
            ("tokens_per_param", "tokens per parameter"),
            ("loss_nats", "nats per token"),
        ):
            optima.add_row(head, unit, *(_cell(getattr(run, name)) for run in best), end_section=name == "loss_nats")
            head = ""
    console.print(optima)


def _cell(interval: Interval | None) -> str:
    return "not fitted" if interval is None else f"{interval.value:.4g}\n{interval.low:.4g} to {interval.high:.4g}"

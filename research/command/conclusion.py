"""From the runs table to a law, a prediction, a report: what `run` does after the sweep, and `report` at any time."""

import dataclasses
from collections import Counter
from pathlib import Path

import jax
import pandas
from rich import box
from rich.console import Console
from rich.table import Table

from analysis import runs_table
from analysis.files import write_atomically
from analysis.fit import FitError
from analysis.laws import find
from analysis.report import write_comparison, write_study
from analysis.studies import (
    Comparison,
    Score,
    Study,
    backtest_of,
    by_length,
    compare,
    fit_table,
    optimum,
    predict,
    score,
)
from research.config import run_name, short_number
from research.plan import Experiment, run_cost
from research.runs import PlanFolder, Status, collect, prediction
from research.runs.prediction import HeldOut
from research.runs.timings import Account, account


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The law of the planned runs, or why there is none; of several families, how they compare."""

    table: pandas.DataFrame  # the planned runs; the held-out one is not in it
    study: Study | None
    why_not: str = ""
    comparison: Comparison | None = None


def check_law(experiment: Experiment) -> None:
    """Raise LawError now if the law asked for is not known, and not when everything has been trained."""
    if experiment.law is not None:
        find(experiment.law)


def fit(plan: PlanFolder) -> Fitted:
    """Fit the law to what is done of the planned runs."""
    # The workers may have the accelerator to themselves only if this process, which fits on the CPU, does not take it.
    jax.config.update("jax_platforms", "cpu")
    table = collect(plan.configs, plan.runs_dir)
    try:
        if table["family"].nunique() > 1:
            comparison = compare(table, law=plan.experiment.law)
            return Fitted(table, None, "Several families are compared instead.", comparison)
        return Fitted(table, fit_table(table))
    except FitError as error:
        return Fitted(table, None, str(error))


def predict_held_out(plan: PlanFolder, fitted: Fitted, console: Console) -> HeldOut | None:
    """Write down what the law says of the held-out run, before it is trained; returns it, or None if there is none.

    A prediction that was made from the same table is kept as it is. None is made from an unfinished sweep.
    """
    experiment = plan.experiment
    if experiment.held_out_flops is None:
        return None
    unfinished = fitted.table[~fitted.table["status"].isin([Status.DONE, Status.FAILED])]
    if len(unfinished) or fitted.study is None:
        reason = f"{len(unfinished)} runs are unfinished" if len(unfinished) else "there is no fit"
        console.print(f"The held-out run waits: {reason}.", style="yellow")
        return None
    kept = prediction.of_plan(plan)
    if kept is not None and kept.prediction.table_digest == fitted.study.table_digest:
        return kept
    best = optimum(fitted.study, experiment.held_out_flops)
    config = experiment.held_out_run(best.params.value)
    cost = run_cost(config)
    predicted = predict(fitted.study, {"params": cost.params, "tokens": cost.tokens})
    console.print(
        f"Prediction for {run_name(config)}: {predicted}; written down before it trains.",
        style="cyan",
        highlight=False,
        soft_wrap=True,
    )
    return prediction.write(plan, config, predicted, best.params.value)


def write_report(plan: PlanFolder, fitted: Fitted, console: Console, folder: Path | None) -> None:
    """Write the table and everything that follows from it into `folder`, and print the gist; None: print it only."""
    held_out = prediction.of_plan(plan)
    table = fitted.table
    if held_out is not None:
        table = pandas.concat([table, collect([held_out.config], plan.runs_dir)], ignore_index=True)
    timings = account(plan.timings_path, table)
    paths = [] if folder is None else _write(plan.experiment, fitted, held_out, table, timings, folder)
    _print_gist(fitted, held_out, table, console)
    if timings:
        console.print(_timings_table(timings))
    if folder is not None:
        console.print(f"Written to {folder}:", style="dim", soft_wrap=True)
        names = " ".join(str(path.relative_to(folder)) for path in paths)
        console.print(f"  {names}", style="dim", highlight=False, soft_wrap=True)


def _write(
    experiment: Experiment,
    fitted: Fitted,
    held_out: HeldOut | None,
    table: pandas.DataFrame,
    timings: Account | None,
    folder: Path,
) -> list[Path]:
    paths = runs_table.write(table, folder / "runs")
    if fitted.comparison is not None:
        return paths + write_comparison(folder, experiment.name, experiment.question, fitted.comparison)
    if fitted.study is None:
        return [*paths, _write_report_without_fit(experiment, folder, table, fitted.why_not)]
    scored = (_score(held_out, table) or held_out.prediction) if held_out else None
    past = backtest_of(fitted.study, fitted.table)
    return paths + write_study(folder, table, fitted.study, scored, timings, past)


def _score(held_out: HeldOut, table: pandas.DataFrame) -> Score | None:
    """The prediction beside the held-out run's loss, None as long as there is none."""
    loss = table.loc[table["held_out"] & (table["status"] == Status.DONE), "loss_nats"].dropna()
    return None if loss.empty else score(held_out.prediction, float(loss.iloc[0]))


def _write_report_without_fit(experiment: Experiment, folder: Path, table: pandas.DataFrame, why_not: str) -> Path:
    shown = table[["run", "status", "params", "tokens", "loss_nats"]]
    rows = ["| " + " | ".join(str(value) for value in row) + " |" for row in shown.itertuples(index=False)]
    lines = [
        f"# {experiment.name}",
        "",
        experiment.question,
        "",
        "## Law",
        "",
        f"No law was fitted. {why_not}",
        "",
        "## Runs",
        "",
        "| run | status | params | tokens | held-out loss, nats per token |",
        "|---|---|---|---|---|",
        *rows,
    ]
    path = folder / "report.md"
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return path


def _print_gist(fitted: Fitted, held_out: HeldOut | None, table: pandas.DataFrame, console: Console) -> None:
    counts = Counter(str(status) for status in table["status"])
    missing = ", ".join(f"{number} {status}" for status, number in counts.items() if status != Status.DONE)
    console.print(f"{counts['done']} of {len(table)} runs are done" + (f"; {missing}." if missing else "."))
    for run, reason in table.loc[table["status"] == Status.FAILED, ["run", "failure_reason"]].itertuples(index=False):
        console.print(f"failed: {run}: {reason}", style="red", markup=False, soft_wrap=True)
    if fitted.comparison is not None:
        console.print(_comparison_table(fitted.comparison))
    elif fitted.study is None:
        console.print(f"No law was fitted. {fitted.why_not}", style="yellow", markup=False, soft_wrap=True)
    if held_out is not None:
        failed = table["held_out"].iloc[-1] and table["status"].iloc[-1] == Status.FAILED
        state = "the run failed, so the prediction is not tested" if failed else "not measured yet"
        verdict = _score(held_out, table) or f"predicted {held_out.prediction}; {state}."
        console.print(f"Held out: {verdict}", style="bold", highlight=False, soft_wrap=True)


def _comparison_table(comparison: Comparison) -> Table:
    """Each family at each budget, at its best learning rate."""
    table = Table(header_style="bold", box=box.SIMPLE_HEAD, show_edge=False, caption_justify="left")
    table.add_column("family", no_wrap=True)
    cells = [cell for family in comparison.families for cell in family.cells]
    is_task = any(len(by_length(cell, "exact_match")[0]) for cell in cells)  # no text is ever predicted exactly
    for name in ("budget\nFLOPs", "params", "learning\nrate", "loss\nnats/token", *(["exact\nmatch"] * is_task)):
        table.add_column(name, justify="right", no_wrap=True)
    for family in comparison.families:
        for cell in family.cells:
            exact = cell.measures.get("exact_match")
            table.add_row(
                family.name,
                "-" if cell.budget_flops is None else short_number(cell.budget_flops),
                short_number(cell.params),
                f"{cell.learning_rate:.3g}{' *' if cell.at_edge else ''}",
                f"{cell.loss_nats:.4f}",
                *(["" if exact is None else f"{exact:.3f}"] * is_task),
            )
        table.add_section()
    if any(cell.at_edge for cell in cells):
        table.caption = "* an end of the sweep: the family may do better beyond it"
    return table


def _timings_table(timings: Account) -> Table:
    """Where the workers' time went."""
    table = Table(
        title="Workers' time", title_justify="left", caption_justify="left", header_style="bold", show_footer=True,
        box=box.SIMPLE_HEAD, show_edge=False,
    )  # fmt: skip
    table.add_column("", footer="all")
    table.add_column("seconds", justify="right", footer=f"{timings['run_seconds']:.1f}")
    table.add_column("share", justify="right")
    phases, total = timings["phase_seconds"], timings["run_seconds"]
    lines = {"training steps": phases["train"]}
    lines |= {name: seconds for name, seconds in phases.items() if name != "train"}
    lines |= {"no run, or one that is not done": max(0.0, total - sum(phases.values()))}
    for name, seconds in lines.items():
        table.add_row(name, f"{seconds:.1f}", f"{seconds / total:.1%}")
    table.caption = (
        f"Outside training steps: {1 - phases['train'] / total:.1%}. Their matrix products at the best rate would take "
        f"{timings['ideal_share']:.1%} of the time."
    )
    return table

"""From the runs table to a law, a prediction, a report: what `run` does after the sweep, and `report` at any time."""

import dataclasses
from collections import Counter
from itertools import chain
from pathlib import Path

import jax
import pandas
from rich.console import Console

from analysis import runs_table
from analysis.fit import FitError
from analysis.laws import find
from analysis.report import (
    TimeAccount,
    best_runs_section,
    cells_section,
    optima_section,
    show,
    study_report,
    time_account,
    time_section,
)
from analysis.report.document import Number, Paragraph, Section, Table
from analysis.report.files import write_comparison, write_document, write_study, write_sweep
from analysis.studies import (
    Comparison,
    Score,
    Study,
    SweepLaws,
    backtest_of,
    compare,
    fit_table,
    optimum,
    predict,
    score,
    sweep_laws,
)
from research.config import run_name
from research.plan import Experiment, run_cost
from research.runs import PlanFolder, Status, collect, prediction, rounds_of, setting_column
from research.runs.prediction import HeldOut
from research.runs.timings import account


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The law of the planned runs, or why there is none; of several families, how they compare."""

    table: pandas.DataFrame  # the runs of all rounds; the held-out one is not in it
    study: Study | None
    why_not: str = ""
    comparison: Comparison | None = None
    sweep: SweepLaws | None = None  # the best settings that a plan searched


def check_law(experiment: Experiment) -> None:
    """Raise LawError now if the law asked for is not known, and not when everything has been trained."""
    if experiment.law is not None:
        find(experiment.law)


def fit(plan: PlanFolder) -> Fitted:
    """Fit the law to what is done of the runs of all rounds, or find the best settings where a plan searched some."""
    # The workers may have the accelerator to themselves only if this process, which fits on the CPU, does not take it.
    jax.config.update("jax_platforms", "cpu")
    searched = plan.experiment.searched
    table = collect(chain.from_iterable(rounds_of(plan)), plan.runs_dir, searched)
    try:
        if searched:
            why_not = "The best settings of each cell are looked for instead."
            return Fitted(table, None, why_not, sweep=_best_settings(table, [*map(setting_column, searched)]))
        if table["family"].nunique() > 1:
            comparison = compare(table, law=plan.experiment.law)
            return Fitted(table, None, "Several families are compared instead.", comparison)
        return Fitted(table, fit_table(table))
    except FitError as error:
        return Fitted(table, None, str(error))


def _best_settings(table: pandas.DataFrame, settings: list[str]) -> SweepLaws:
    """Bowls and laws of the settings that are numbers; those that are not make cells of their own.

    Raises FitError where nothing of them can be found.
    """
    types = pandas.api.types
    axes = [name for name in settings if types.is_numeric_dtype(table[name]) and not types.is_bool_dtype(table[name])]
    if not axes:
        raise FitError(f"{', '.join(settings)}: have no bowl, being names. Fix: compare them as families of a Grid.")
    cell = ("params", "tokens", *(name for name in settings if name not in axes))
    return sweep_laws(_at_tokens_of_cell(table), cell=cell, axes=axes)


def _at_tokens_of_cell(table: pandas.DataFrame) -> pandas.DataFrame:
    """The table with the tokens that a cell's runs have in the middle: steps are whole, so that they differ by half a
    step, and a cell is one by its tokens."""
    return table.assign(tokens=table.groupby(["params", "budget_flops"])["tokens"].transform("median"))


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
    time = time_account(timings) if timings else None
    paths = [] if folder is None else _write(plan.experiment, fitted, held_out, table, time, folder)
    _print_gist(fitted, held_out, table, console)
    if time is not None:
        show(console, time_section(time))
    if folder is not None:
        console.print(f"Written to {folder}:", style="dim", markup=False, soft_wrap=True)
        names = " ".join(str(path.relative_to(folder)) for path in paths)
        console.print(f"  {names}", style="dim", highlight=False, markup=False, soft_wrap=True)


def _write(
    experiment: Experiment,
    fitted: Fitted,
    held_out: HeldOut | None,
    table: pandas.DataFrame,
    time: TimeAccount | None,
    folder: Path,
) -> list[Path]:
    paths = runs_table.write(table, folder / "runs")
    if fitted.sweep is not None:
        searched = _at_tokens_of_cell(fitted.table)
        return paths + write_sweep(folder, experiment.name, experiment.question, fitted.sweep, searched)
    if fitted.comparison is not None:
        return paths + write_comparison(folder, experiment.name, experiment.question, fitted.comparison)
    if fitted.study is None:
        return [*paths, write_document(folder / "report.md", _without_fit(experiment, table, fitted.why_not))]
    report = study_report(
        table,
        fitted.study,
        prediction=held_out.prediction if held_out else None,
        score=_score(held_out, table) if held_out else None,
        backtest=backtest_of(fitted.study, fitted.table),
        time=time,
    )
    return paths + write_study(folder, table, report)


def _score(held_out: HeldOut, table: pandas.DataFrame) -> Score | None:
    """The prediction beside the held-out run's loss, None as long as there is none."""
    loss = table.loc[table["held_out"] & (table["status"] == Status.DONE), "loss_nats"].dropna()
    return None if loss.empty else score(held_out.prediction, float(loss.iloc[0]))


def _without_fit(experiment: Experiment, table: pandas.DataFrame, why_not: str) -> Section:
    """The report of runs that no law could be fitted to."""
    shown = table[["run", "status", "params", "tokens", "loss_nats"]].itertuples(index=False)
    rows = tuple(
        (
            str(run),
            str(status),
            Number(params, ",.0f"),
            Number(tokens, ",.0f"),
            Number(loss, ".4f") if loss > 0 else "-",
        )
        for run, status, params, tokens, loss in shown
    )
    columns = ("run", "status", "params", "tokens", "held-out loss (nats per token)")
    return Section(
        experiment.name,
        (
            Paragraph(experiment.question),
            Section("Law", (Paragraph(f"No law was fitted. {why_not}"),)),
            Section("Runs", (Table(columns, rows),)),
        ),
    )


def _print_gist(fitted: Fitted, held_out: HeldOut | None, table: pandas.DataFrame, console: Console) -> None:
    counts = Counter(str(status) for status in table["status"])
    missing = ", ".join(f"{number} {status}" for status, number in counts.items() if status != Status.DONE)
    console.print(f"{counts['done']} of {len(table)} runs are done" + (f"; {missing}." if missing else "."))
    for run, reason in table.loc[table["status"] == Status.FAILED, ["run", "failure_reason"]].itertuples(index=False):
        console.print(f"failed: {run}: {reason}", style="red", markup=False, soft_wrap=True)
    if fitted.sweep is not None:
        show(console, best_runs_section(fitted.sweep), optima_section(fitted.sweep))
    elif fitted.comparison is not None:
        show(console, cells_section(fitted.comparison))
    elif fitted.study is None:
        console.print(f"No law was fitted. {fitted.why_not}", style="yellow", markup=False, soft_wrap=True)
    if held_out is not None:
        failed = table["held_out"].iloc[-1] and table["status"].iloc[-1] == Status.FAILED
        state = "the run failed, so the prediction is not tested" if failed else "not measured yet"
        verdict = _score(held_out, table) or f"predicted {held_out.prediction}; {state}."
        console.print(f"Held out: {verdict}", style="bold", highlight=False, markup=False, soft_wrap=True)

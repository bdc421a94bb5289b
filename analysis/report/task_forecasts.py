"""Forecasts of downstream tasks as a document: both steps, each run and task, and the error where it was measured."""

from analysis.intervals import Estimate
from analysis.report.document import Code, Content, Number, Paragraph, Section, Span, Strong, Table, notes_on, span
from analysis.report.fitted_law import constants_table, fit_quality, weak_constants, weakly_identified
from analysis.report.table_notes import SHOWN_ROWS, left_out_section, notes_block
from analysis.studies.task_forecasts import Forecast, TaskForecasts


def forecast_sections(found: TaskForecasts) -> tuple[Section, ...]:
    """All that `isoflop downstream` prints; both steps in full where there is one task, else tables of constants."""
    steps = list(found.steps.values()) if len(found.steps) == 1 else []
    laws = (_step(i, law, found.level) for both in steps for i, law in enumerate((both.task_loss, both.accuracy), 1))
    weak = () if steps else (_constants(found), *_weak(found))
    left_out = left_out_section(found.left_out, "row")
    return (
        *notes_block(found.table_notes), *laws, *weak, _forecasts(found), *_errors(found), *_without(found), *left_out
    )  # fmt: skip


def _step(number: int, law: Estimate, level: float) -> Section:
    blocks = (
        Paragraph((Code(law.fit.law.formula), f" ({law.fit.law.citation})")),
        constants_table(law.fit.law, law.intervals, level),
        *notes_on(law.intervals.values()),
        Paragraph(fit_quality(law)),
        *weakly_identified(weak_constants(law)),
    )
    return Section(f"Step {number}", blocks)


def _constants(found: TaskForecasts) -> Section:
    """The constants of both steps of several tasks, and how they were fitted, which is one way for all."""
    one = next(iter(found.steps.values()))
    both = tuple(
        Paragraph(
            (
                f"Step {number}: ",
                Code(law.fit.law.formula),
                f", objective {law.fit.objective}; intervals: {law.method}.",
            )
        )
        for number, law in enumerate((one.task_loss, one.accuracy), 1)
    )
    rows = tuple(
        (task, Number(number, "d"), name, span(interval))
        for task, steps in found.steps.items()
        for number, law in enumerate((steps.task_loss, steps.accuracy), 1)
        for name, interval in law.intervals.items()
    )
    columns = ("task", "step", "constant", ("value and ", Number(found.level, ".0%"), " interval"))
    notes = notes_on(
        i for s in found.steps.values() for law in (s.task_loss, s.accuracy) for i in law.intervals.values()
    )
    table = Table(columns, rows, grouped=True, terminal_rows=2 * SHOWN_ROWS)
    return Section("Constants of both steps", (*both, table, *notes))


def _weak(found: TaskForecasts) -> tuple[Section, ...]:
    """The constants of either step that the runs do not pin down, task by task; nothing where they pin down all."""
    rows = tuple(
        (task, Number(number, "d"), name, reason)
        for task, both in found.steps.items()
        for number, law in enumerate((both.task_loss, both.accuracy), 1)
        for name, reason in weak_constants(law).items()
    )
    columns = ("task", "step", "constant", "why it is not to be read on its own")
    title = "Constants that are weakly identified"
    return (Section(title, (Table(columns, rows, grouped=True, terminal_rows=SHOWN_ROWS),)),) if rows else ()


def _forecasts(found: TaskForecasts) -> Section:
    ideal = " and the ideal model, of no task loss and full accuracy" if found.ideal_point else ""
    text: Content = (
        "Step 1: task loss (bits per byte) at the end of each run, of params and tokens. Step 2: accuracy, of task "
        f"loss at every checkpoint{ideal}. ", *_averaged(found), Number(found.level, ".0%"), " intervals of the laws, "
        "without a run's own noise.",
    )  # fmt: skip
    measured = "measured" if found.window == 1 else ("measured (mean of the last ", Number(found.window, "d"), ")")
    columns = ("run", "task", "task loss", measured, "accuracy", measured, "error", "times the fitted")
    order = {run: i for i, run in enumerate(dict.fromkeys(one.run for one in found.forecasts))}
    rows = tuple(_row(one) for one in sorted(found.forecasts, key=lambda one: order[one.run]))
    shown = Table(columns, rows, grouped=True) if rows else Paragraph("No run is held out, and none is asked for.")
    runs = {one.run: one for one in found.forecasts}
    warnings = tuple(Paragraph(Strong(f"{one.run} {one.reach.warning}.")) for one in runs.values() if one.reach.warning)
    return Section("Accuracy of runs that no fit has seen", (Paragraph(text), shown, *warnings))


def _averaged(found: TaskForecasts) -> Content:
    """How checkpoints became points, for a text that goes on."""
    window: Content = ()
    if found.window > 1:
        window = ("A point, and what was measured, is the mean over the last ", Number(found.window, "d"),
                  " checkpoints of a run up to it (--window). ")  # fmt: skip
    skipped: Content = ()
    if found.skip > 0:
        skipped = ("The first ", Number(found.skip, ".0%"), " of each run is left away (--skip). ")
    return (*window, *skipped)


def _row(one: Forecast) -> tuple[Content, ...]:
    factor = Span(Number(one.reach.factor, ".3g"), one.reach.quantity)
    return (
        one.run,
        one.task,
        span(one.predicted.task_loss),
        "" if one.task_loss is None else Number(one.task_loss),
        span(one.predicted.accuracy),
        "" if one.accuracy is None else Number(one.accuracy),
        "" if one.accuracy is None else Number(one.error, "+.3g"),
        "inside" if one.reach.factor <= 1 else Strong(factor) if one.reach.warning else factor,
    )


def _errors(found: TaskForecasts) -> tuple[Section, ...]:
    if not found.errors:
        return ()
    rows = tuple(
        (
            error.run,
            Number(error.tasks, "d"),
            Number(100 * error.absolute, ".2f"),
            Number(error.relative, ".2%"),
            Number(error.inside, ".0%"),
        )
        for error in found.errors
    )
    columns = (
        "run",
        "tasks",
        "mean absolute error of accuracy (percentage points)",
        "of the measured accuracy, mean",
        ("inside the ", Number(found.level, ".0%"), " interval of the laws"),
    )
    return (Section("Error on held-out runs", (Table(columns, rows),)),)


def _without(found: TaskForecasts) -> tuple[Section, ...]:
    if not found.without:
        return ()
    return (Section("Tasks that were not fitted", (Table(("task", "reason"), found.without),)),)

"""A study and what follows from it, as one value: what law.json holds, and the document made from exactly that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from analysis import json_values
from analysis.compute import FlopRule
from analysis.fit import FitError
from analysis.intervals import Estimate, Interval
from analysis.quantities import is_loss, with_unit
from analysis.report import beyond_the_runs, fitted_law, valleys
from analysis.report.document import Bullets, Code, Content, Figure, Number, Paragraph, Section, between, rows_of_runs
from analysis.report.residual_checks import checks_section
from analysis.report.table_notes import left_out_table, notes_block
from analysis.report.time_account import TimeAccount, time_section
from analysis.runs_table import FOREIGN, unit_of
from analysis.studies import (
    Backtest,
    Departure,
    Lifetime,
    Optimum,
    Prediction,
    Score,
    Study,
    cost_of_departing,
    frontier_exponents,
    lifetime_optimum,
    optimum,
)


@dataclass(frozen=True)
class Questions:
    """What is asked of a study's optima besides those at 1, 10 and 100 times the largest fitted budget.

    budgets: further ones, in FLOP. rule: another way of counting FLOPs than the table's, under which approach 2 does
    not hold. hyperparameters: laws read at each approach's optima. served: (loss in nats per token, tokens served) of
    the run that is cheapest over its life.
    """

    budgets: tuple[float, ...] = ()
    rule: FlopRule | None = None
    hyperparameters: tuple[Estimate, ...] = ()
    served: tuple[float, float] | None = None

    def check(self, study: Study) -> None:
        """Raise FitError for a budget that is none, or where anything is asked of a study that has no optima."""
        if study.optima_note and (self.budgets or self.hyperparameters or self.served is not None):
            raise FitError(study.optima_note)
        for budget in self.budgets:
            if not (budget > 0 and math.isfinite(budget)):
                raise FitError(f"budgets = {budget:g}: must be positive and finite. Fix: give raw FLOPs, as 1e21.")


NO_QUESTIONS = Questions()


@dataclass(frozen=True)
class Frontier:
    """What a study says of compute-optimal runs.

    exponents: of params and of tokens against flops. optima: by budget, then approach. departures: what other sizes
    cost at `departures_flops`.
    """

    exponents: tuple[Interval, Interval]
    optima: tuple[Optimum, ...]
    departures_flops: float
    departures: tuple[Departure, ...]


@dataclass(frozen=True)
class StudyReport:
    """Everything that a report on one study prints.

    experiments: names that the table states. rows: in the table; fitted, left_out: of them; runs: fitted. frontier:
    None for a law of other inputs than params and tokens (study.optima_note has the reason). prediction: of a run that
    no fit has seen; score: how it came out, once it is measured. caveats: what is said wherever an interval of the
    study is.
    """

    study: Study
    experiments: tuple[str, ...]
    rows: int
    fitted: int
    runs: int
    left_out: int
    frontier: Frontier | None
    lifetime: Lifetime | None
    prediction: Prediction | None
    score: Score | None
    backtest: Backtest | None
    time: TimeAccount | None
    caveats: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """What law.json holds: the study, which `Study.from_dict` reads back, and the rest under the key `report`."""
        rest = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "study"}
        return {**self.study.to_dict(), "report": json_values.to_dict(rest)}

    def findings(self) -> tuple[Section, ...]:
        """The sections that `isoflop fit` prints: the law, the optima, what departing from them costs."""
        found = [fitted_law.law_section(self.study), checks_section(self.study.checks, self.study.law.fit)]
        if self.frontier is not None:
            frontier, isoflop = self.frontier, self.study.isoflop
            approach_2: tuple[Content, ...] = (f"Approach 2 is not fitted. {self.study.isoflop_note}",)
            if isoflop is not None:
                approach_2 = (valleys.exponents(isoflop), *valleys.remarks(isoflop))
            found += [
                beyond_the_runs.optima_section(frontier.optima, frontier.exponents, approach_2, self.caveats),
                *([valleys.design_section(isoflop)] if isoflop is not None else []),
                beyond_the_runs.departures_section(frontier.departures_flops, self.study.level, frontier.departures),
            ]
        elif is_loss(self.study.law.fit.law.output):
            found.append(Section("Compute-optimal runs", (Paragraph(f"There are none. {self.study.optima_note}"),)))
        return (*found, *([beyond_the_runs.lifetime_section(self.lifetime)] if self.lifetime else []))

    def runs_section(self) -> Section:
        """How many rows were fitted, over which ranges, and which were left out."""
        rows = Number(self.rows, "d"), Number(self.fitted, "d"), Number(self.left_out, "d")
        of_runs: Content = (", of ", Number(self.runs, "d"), " runs") if self.runs < self.fitted else ""
        ranges = tuple(
            (f"fitted {name}: ", between(Number(low), Number(high, unit=unit_of(name))))
            for name, (low, high) in self.study.ranges.items()
        )
        return Section(
            "Runs",
            (
                Paragraph((rows[0], " rows in the table: ", rows[1], " fitted", of_runs, ", ", rows[2], " left out.")),
                Bullets(ranges),
                *left_out_table(self.study.left_out),
            ),
        )

    def document(self, figures: Sequence[Figure] = ()) -> Section:
        """The whole report; figures: those that were drawn for it."""
        law, level = self.study.law.fit.law, self.study.level
        opening: Content = (
            "Law: ", Code(law.formula), f", {with_unit(law.output)}, from ",
            rows_of_runs(self.fitted, self.runs), " (", Number(self.left_out, "d"), " left out). Intervals are ",
            Number(level, ".0%"), " unless said otherwise. Every number here is in law.json, unrounded.",
        )  # fmt: skip
        scored = [beyond_the_runs.held_out_section(self.prediction, self.score)] if self.prediction else []
        fitted, checks, *beyond = self.findings()
        return Section(
            f"Scaling law of {', '.join(self.experiments) or law.output}",
            (
                Paragraph(opening),
                *notes_block(self.study.table_notes),
                *scored,
                fitted,
                checks,
                *([valleys.valleys_section(self.study)] if is_loss(law.output) else []),
                *beyond,
                *([beyond_the_runs.backtest_section(self.backtest)] if self.backtest else []),
                *([Section("Figures", tuple(figures))] if figures else []),
                self.runs_section(),
                *([time_section(self.time)] if self.time else []),
            ),
        )


def study_report(
    table: pd.DataFrame,
    study: Study,
    *,
    prediction: Prediction | None = None,
    score: Score | None = None,
    backtest: Backtest | None = None,
    time: TimeAccount | None = None,
    questions: Questions = NO_QUESTIONS,
) -> StudyReport:
    """Take the optima of a study and gather all that a report on it needs.

    Optima are taken at 1, 10 and 100 times the largest fitted budget, at the budgets of the questions and at the
    prediction's. Raises FitError for a budget, loss or number of tokens that is not positive, and where questions are
    asked of a study that has no optima.
    """
    has_optima = not study.optima_note
    questions.check(study)
    names = set(table["experiment"].dropna().astype(str)) if "experiment" in table.columns else set()
    predicted = prediction.flops if prediction is not None else None
    served, rule = questions.served, questions.rule
    return StudyReport(
        study=study,
        experiments=tuple(sorted(names - {FOREIGN})),
        rows=len(table),
        fitted=len(study.law.fit.used),
        runs=len(set(study.law.fit.used)),
        left_out=len(study.left_out),
        frontier=_frontier(study, questions, predicted) if has_optima else None,
        lifetime=lifetime_optimum(study, *served, rule) if served is not None and has_optima else None,
        prediction=prediction,
        score=score,
        backtest=backtest,
        time=time,
        caveats=study.caveats,
    )


def _frontier(study: Study, questions: Questions, predicted_flops: float | None) -> Frontier:
    budgets, rule = questions.budgets, questions.rule
    also = () if predicted_flops is None else (predicted_flops,)
    flops = sorted({*(factor * study.largest_flops for factor in (1, 10, 100)), *budgets, *also})
    approaches = (2, 3) if study.isoflop is not None and rule in (None, study.flop_rule) else (3,)
    optima = tuple(
        optimum(study, budget, approach=approach, rule=rule, hyperparameters=questions.hyperparameters)
        for budget in flops
        for approach in approaches
    )
    departures_flops = max(budgets, default=study.largest_flops)
    departures = cost_of_departing(study, departures_flops, rule=rule)
    return Frontier(frontier_exponents(study, rule), optima, departures_flops, departures)

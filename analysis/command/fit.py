"""`isoflop fit`: a law, its intervals, what was left out, and what the law calls optimal."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.command.outputs import announce, check_file, check_folder, standard_output, write_json, writing
from analysis.command.request import Assignments, Merged, Request, Source, numbers, pairs
from analysis.sampling import ONE_FIT, Sampling

if TYPE_CHECKING:
    import pandas as pd

    from analysis.compute import FlopRule, ValleySettings
    from analysis.intervals import Estimate, Resampling
    from analysis.studies import Study


@dataclass(frozen=True)
class Drawn:
    """What the resamples draw."""

    resample_by: str = ""
    """Cluster by this column: its equal values are resampled together, such as the checkpoints of a run; single points
    if not given, and runs where a run has several rows."""
    resample_within: str = ""
    """Stratify by this column (e.g. budget_flops): each stratum keeps its number of points."""

    def resampling(self) -> "Resampling":
        """The same for whatever draws them."""
        from analysis.intervals import Resampling

        return Resampling(self.resample_by, self.resample_within)


@dataclass(frozen=True)
class Minima:
    """How approach 2 reads its minima."""

    valleys: str = "auto"
    """How approach 2 reads the minimum of a budget: parabola, lowest:K (a parabola through the K lowest losses),
    interpolation, law (the fitted law's own), or auto, which says what it chose and why."""
    noise_nats: float | None = None
    """Standard deviation of the loss between seeds, where the table has no repeated seeds to tell it."""
    budget_tolerance: float = 0.1
    """Neighbouring budgets within this share of one another are one."""

    def settings(self) -> "ValleySettings":
        """The same for approach 2. Raises FitError for a reading that is none, or a number below zero."""
        from analysis.compute import ValleySettings

        return ValleySettings(self.valleys, self.noise_nats, self.budget_tolerance)


@dataclass(frozen=True)
class Asked:
    """What is asked of the optima."""

    budgets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOP")] = ()
    """Compute budgets in FLOP to find the optimum at, besides 1, 10 and 100 times the largest fitted one."""
    flops: str = "table"
    """How optima count FLOPs: table, kaplan (without embeddings), attention, a rule such as '6.2 * params^0.98', or
    6nd, which takes the place of the table's column of FLOPs, too."""
    given: Annotated[Assignments, tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """Values of the law's inputs besides params and tokens, at which optima are taken."""
    hyperparameters: Annotated[Assignments, tyro.conf.arg(metavar="LAW=TABLE")] = ()
    """Laws of params and tokens fitted to tables of their own, read at the optima of each approach."""
    target_loss: float | None = None
    """Quality in nats per token for which the cheapest run is found, training and serving together."""
    inference_tokens: float | None = None
    """Tokens served over that run's life."""

    def served(self) -> tuple[float, float] | None:
        """The loss and the tokens served of the run that is cheapest over its life. Raises FitError for one alone."""
        from analysis.fit import FitError

        if (self.target_loss is None) != (self.inference_tokens is None):
            raise FitError("target_loss and inference_tokens: belong together. Fix: give both, or neither.")
        return None if self.target_loss is None else (self.target_loss, self.inference_tokens)

    def priced(self, table: "pd.DataFrame") -> "pd.DataFrame":
        """The table with the FLOPs asked for: under 6nd nothing is read off its own count."""
        from analysis.runs_table import six_nd

        return table.assign(flops=six_nd(table)) if self.flops == "6nd" else table

    def rule(self, table: "pd.DataFrame", study: "Study") -> "FlopRule | None":
        """How optima count FLOPs where they do not as the table does."""
        from analysis.compute import flop_rule
        from analysis.studies import fitted_rows

        as_it_does = self.flops in ("table", "6nd") or study.optima_note
        return None if as_it_does else flop_rule(self.flops, fitted_rows(table, study))


def fit(
    source: Annotated[Source, Merged],
    request: Annotated[Request, Merged],
    *,
    json: Path | None = None,
    figures: Path | None = None,
    sampling: Annotated[Sampling, Merged] = ONE_FIT,
    drawn: Annotated[Drawn, Merged] = Drawn(),
    minima: Annotated[Minima, Merged] = Minima(),
    asked: Annotated[Asked, Merged] = Asked(),
    far_factor: float = 10.0,
) -> None:
    """Fit a scaling law to a table of runs, with bootstrap intervals, and print it.

    Without FLOPs, runs are priced at 6 * params * tokens; without budgets, approach 2 is not fitted.

    Args:
        source: the table.
        request: the law.
        json: file that gets everything that was found, as JSON.
        figures: folder that gets report.md, law.json and the figures, each as PNG and PDF.
        sampling: the resamples.
        drawn: what they draw.
        minima: approach 2.
        asked: the optima.
        far_factor: predictions and optima further than this many times beyond the fitted range are flagged.
    """
    from analysis import backend
    from analysis.report import Questions, notes_block, show, study_report
    from analysis.studies import backtest_of

    backend.configure_command()
    console = standard_output()
    check_file("--json", json)
    check_folder("--figures", figures)
    served = asked.served()
    table = asked.priced(request.read(source, drawn.resample_by, drawn.resample_within))
    study = request.study(
        table,
        sampling=sampling,
        resampling=drawn.resampling(),
        far_factor=far_factor,
        given=numbers("--given", asked.given),
        valleys=minima.settings(),
    )
    questions = Questions(
        asked.budgets, asked.rule(table, study), _hyperparameter_laws(asked.hyperparameters, request, sampling), served
    )
    backtest = None if figures is None else backtest_of(study, table)
    report = study_report(table, study, backtest=backtest, questions=questions)
    show(console, *notes_block(study.table_notes), *report.findings(), report.runs_section())
    write_json(console, json, report.to_dict())
    if figures is not None:
        from analysis.report.files import write_study  # brings matplotlib

        with writing("--figures", figures):
            paths = write_study(figures, table, report)
        announce(console, paths)


def _hyperparameter_laws(groups: Assignments, request: Request, sampling: Sampling) -> "tuple[Estimate, ...]":
    from analysis.fit import FitError
    from analysis.intervals import estimate_rows
    from analysis.laws import load
    from analysis.quantities import is_loss
    from analysis.tables.units import check_units, is_share

    found = []
    for name, path in pairs("--hyperparameters", groups).items():
        law = load(name)
        if is_loss(law.output) or is_share(law.output):
            raise FitError(
                f"--hyperparameters {name}: gives {law.output}, which is no hyperparameter. Fix: name a law of one, as "
                f"learning_rate_params_tokens={path} (isoflop laws lists them)."
            )
        table = Source(Path(path)).read((*law.inputs, law.output))
        check_units(law, table)
        found.append(estimate_rows(law, table, request.chosen_objective(), sampling))
    return tuple(found)

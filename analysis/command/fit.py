"""`isoflop fit`: a law, its intervals, what was left out, and what the law calls optimal."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from analysis.command.outputs import announce, check_file, check_folder, standard_output, write_json, writing
from analysis.command.request import Assignments, Merged, Request, Source, numbers, pairs

if TYPE_CHECKING:
    from analysis.intervals import Estimate

HyperparameterLaws = Annotated[Assignments, tyro.conf.arg(metavar="LAW=TABLE")]


def fit(
    source: Annotated[Source, Merged],
    request: Annotated[Request, Merged],
    *,
    json: Path | None = None,
    figures: Path | None = None,
    bootstraps: int = 1000,
    resample_by: str = "",
    resample_within: str = "",
    budgets: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOP")] = (),
    flops: str = "table",
    valleys: str = "auto",
    noise_nats: float | None = None,
    budget_tolerance: float = 0.1,
    given: Annotated[Assignments, tyro.conf.arg(metavar="NAME=VALUE")] = (),
    hyperparameters: HyperparameterLaws = (),
    far_factor: float = 10.0,
    target_loss: float | None = None,
    inference_tokens: float | None = None,
) -> None:
    """Fit a scaling law to a table of runs, with bootstrap intervals, and print it.

    Without FLOPs, runs are priced at 6 * params * tokens; without budgets, approach 2 is not fitted.

    Args:
        source: the table.
        request: the law.
        json: file that gets everything that was found, as JSON.
        figures: folder that gets report.md, law.json and the figures, each as PNG and PDF.
        bootstraps: number of resamples.
        resample_by: cluster by this column: its equal values are resampled together, such as the checkpoints of a run;
            single points if not given, and runs where a run has several rows.
        resample_within: stratify by this column (e.g. budget_flops): each stratum keeps its number of points.
        budgets: compute budgets in FLOP to find the optimum at, besides 1, 10 and 100 times the largest fitted one.
        flops: how optima count FLOPs: table, kaplan (without embeddings), attention, a rule such as
            '6.2 * params^0.98', or 6nd, which takes the place of the table's column of FLOPs, too.
        valleys: how approach 2 reads the minimum of a budget: parabola, lowest:K (a parabola through the K lowest
            losses), interpolation, law (the fitted law's own), or auto, which says what it chose and why.
        noise_nats: standard deviation of the loss between seeds, where the table has no repeated seeds to tell it.
        budget_tolerance: neighbouring budgets within this share of one another are one.
        given: values of the law's inputs besides params and tokens, at which optima are taken.
        hyperparameters: laws of params and tokens fitted to tables of their own, read at each optimum.
        far_factor: predictions and optima further than this many times beyond the fitted range are flagged.
        target_loss: quality in nats per token for which the cheapest run is found, training and serving together.
        inference_tokens: tokens served over that run's life.
    """
    from analysis import backend
    from analysis.compute import ValleySettings, flop_rule
    from analysis.fit import FitError
    from analysis.intervals import Resampling
    from analysis.report import notes_block, show, study_report
    from analysis.runs_table import six_nd
    from analysis.studies import backtest_of, fitted_rows

    backend.configure_command()
    console = standard_output()
    check_file("--json", json)
    check_folder("--figures", figures)
    if (target_loss is None) != (inference_tokens is None):
        raise FitError("target_loss and inference_tokens: belong together. Fix: give both, or neither.")
    table = request.read(source, resample_by, resample_within)
    if flops == "6nd":  # of the runs, too: nothing is then read off the table's own count
        table, flops = table.assign(flops=six_nd(table)), "table"
    study = request.study(
        table,
        bootstraps=bootstraps,
        resampling=Resampling(resample_by, resample_within),
        far_factor=far_factor,
        given=numbers("--given", given),
        valleys=ValleySettings(valleys, noise_nats, budget_tolerance),
    )
    report = study_report(
        table,
        study,
        backtest=None if figures is None else backtest_of(study, table),
        budgets=budgets,
        rule=None if flops == "table" or study.optima_note else flop_rule(flops, fitted_rows(table, study)),
        hyperparameters=_hyperparameter_laws(hyperparameters, request, bootstraps),
        served=None if target_loss is None or inference_tokens is None else (target_loss, inference_tokens),
    )
    show(console, *notes_block(study.table_notes), *report.findings(), report.runs_section())
    write_json(console, json, report.to_dict())
    if figures is not None:
        from analysis.report.files import write_study  # brings matplotlib

        with writing("--figures", figures):
            paths = write_study(figures, table, report)
        announce(console, paths)


def _hyperparameter_laws(groups: Assignments, request: Request, bootstraps: int) -> "list[Estimate]":
    from analysis.fit import FitError
    from analysis.intervals import estimate
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
        settings = {"level": request.level, "bootstraps": bootstraps, "seed": request.chosen_seed()}
        found.append(estimate(law, table, objective=request.chosen_objective(), **settings))
    return found

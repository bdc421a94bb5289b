"""Figures of a study, one function each, at printed size and readable in grey.

Every function returns a matplotlib Figure; `save` writes it as PNG and vector PDF. The look is in `paper.mplstyle`:
budgets differ by marker and by lightness, laws by line style, so nothing depends on colour alone.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

from analysis.extrapolation import efficient_runs
from analysis.fitting import law_of, select
from analysis.laws import evaluate
from analysis.study import Prediction, Study

WIDTH_INCHES = {"one": 3.35, "two": 6.9}
STYLE = Path(__file__).with_name("paper.mplstyle")
MARKERS = "os^Dv<>PX*"
APPROACH_2, APPROACH_3 = "#b35806", "#1f3b73"  # lightness 0.45 and 0.24: apart in grey as well
STAR = {
    "marker": "*",
    "markersize": 6.5,
    "color": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.7,
    "linestyle": "none",
    "zorder": 4,
}
STAR_WITH_BAR = STAR | {"ecolor": "black", "elinewidth": 1.0, "capsize": 2.5}
Columns = Literal["one", "two"]


class FigureError(ValueError):
    """A figure cannot be drawn; the message names what is missing and the fix."""


def save(figure: Figure, stem: Path | str) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`, without dates, so that the same study gives the same bytes."""
    paths = [Path(f"{stem}.png"), Path(f"{stem}.pdf")]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(STYLE):
        figure.savefig(paths[0])
        figure.savefig(paths[1], metadata={"CreationDate": None})
    return paths


def isoflop_valleys(table: pd.DataFrame, study: Study, columns: Columns = "one") -> Figure:
    """Held-out loss against params: the runs, one parabola per budget, and its optimum with interval (approach 2)."""
    if study.isoflop is None:
        raise FigureError(f"isoflop = None: there are no valleys to draw. Reason: {study.isoflop_note}")
    runs = _fitted_runs(table, study)
    with _axes(columns, 0.85) as (figure, axes):
        for i, valley in enumerate(study.isoflop.valleys):
            shade, marker = _shade(i, len(study.isoflop.valleys)), MARKERS[i % len(MARKERS)]
            mine = runs[runs["budget_flops"] == valley.budget_flops]
            low = min(valley.smallest_params, valley.params.value)
            high = max(valley.largest_params, valley.params.value)
            sizes = np.geomspace(low / 1.15, high * 1.15, 200)
            axes.plot(sizes, valley.loss_at(sizes), color=shade, zorder=2)
            axes.plot(mine["params"], mine["loss_nats"], marker, color=shade, label=_power_of_ten(valley.budget_flops))
            axes.errorbar(valley.params.value, valley.loss_nats.value, xerr=_arms(valley.params), **STAR_WITH_BAR)
        axes.plot([], [], **STAR, label=f"optimum, {study.level:.0%} interval")
        axes.set(xscale="log", xlabel="params (count)", ylabel="held-out loss (nats per token)")
        _legend_above(figure, axes, "budget (FLOP)")
    return figure


def loss_against_compute(
    table: pd.DataFrame, study: Study, columns: Columns = "one", held_out: tuple[float, float] | None = None
) -> Figure:
    """Held-out loss of every run against its FLOPs, with the compute-optimal frontier of the parametric law.

    held_out: (flops, measured loss) of a run that no fit has seen.
    """
    runs = _fitted_runs(table, study)
    flops = _extended(runs["flops"].to_numpy(), held_out[0] if held_out else None)
    best, low, high = _efficient(study, flops, 2)
    with _axes(columns, 0.8) as (figure, axes):
        axes.plot(flops, best, color=APPROACH_3, linewidth=0.8, label="compute-optimal loss, approach 3")
        axes.fill_between(
            flops, low, high, color=APPROACH_3, alpha=0.25, linewidth=0, label=f"{study.level:.0%} band of it"
        )
        _mark_extrapolation(axes, study)
        axes.plot(runs["flops"], runs["loss_nats"], "o", color="0.55", markersize=2.8, label="runs fitted")
        if study.isoflop is not None:
            valleys = study.isoflop.valleys
            axes.plot(
                [valley.budget_flops for valley in valleys],
                [valley.loss_nats.value for valley in valleys],
                **STAR,
                label="optima, approach 2",
            )
        if held_out is not None:
            axes.plot(*held_out, "D", color="black", markersize=4.5, label="held-out run")
        axes.set(xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel="held-out loss (nats per token)")
        _plain_log_ticks(axes)
        axes.legend(loc="upper right")
    return figure


def optimal_allocation(
    table: pd.DataFrame, study: Study, columns: Columns = "two", target_flops: float | None = None
) -> Figure:
    """Compute-optimal params (left) and tokens (right) against FLOPs, by both approaches, out to `target_flops`."""
    flops = _extended(_fitted_runs(table, study)["flops"].to_numpy(), target_flops)
    height = 0.65 if columns == "two" else 1.5
    with _axes(columns, height, panels=2) as (figure, panels):
        for index, (axes, name) in enumerate(zip(panels, ("params", "tokens"), strict=True)):
            best, low, high = _efficient(study, flops, index)
            axes.fill_between(flops, low, high, color=APPROACH_3, alpha=0.2, linewidth=0)
            axes.plot(flops, best, color=APPROACH_3, label=f"approach 3 ({study.level:.0%} band)")
            if study.isoflop is not None:
                _draw_approach_2(axes, study, name, flops)
            _mark_extrapolation(axes, study)
            axes.set(
                xscale="log", yscale="log", xlabel="training compute (FLOP)", ylabel=f"compute-optimal {name} (count)"
            )
        panels[0].legend(loc="upper left")
    return figure


def prediction_against_measurement(
    table: pd.DataFrame,
    study: Study,
    columns: Columns = "one",
    prediction: Prediction | None = None,
    measured_loss: float | None = None,
) -> Figure:
    """Measured against predicted loss (top), their difference in percent (bottom): fitted runs and the held-out one."""
    runs = _fitted_runs(table, study)
    law = law_of(study.law.fit)
    predicted = evaluate(law, study.law.fit.array(), {name: runs[name].to_numpy() for name in law.inputs})
    measured = runs["loss_nats"].to_numpy()
    with _axes(columns, 1.15, panels=2, stacked=(2, 1)) as (figure, (top, bottom)):
        ends = [*measured, *predicted, *([measured_loss, prediction.high, prediction.low] if measured_loss else [])]
        line = np.array([min(ends) * 0.98, max(ends) * 1.02])
        top.plot(line, line, color="0.6", linewidth=0.8, label="measured = predicted")
        bottom.axhline(0.0, color="0.6", linewidth=0.8)
        top.plot(predicted, measured, "o", color=APPROACH_3, label="runs fitted")
        bottom.plot(predicted, 100 * (measured / predicted - 1), "o", color=APPROACH_3)
        if prediction is not None and measured_loss is not None:
            _draw_held_out(top, bottom, prediction, measured_loss)
        top.set(xscale="log", yscale="log", ylabel="measured loss\n(nats per token)")
        bottom.set(xscale="log", xlabel="predicted loss (nats per token)", ylabel="measured minus\npredicted (%)")
        _plain_log_ticks(top)
        _plain_log_ticks(bottom, y=False)
        top.tick_params(labelbottom=False)
        bottom.yaxis.set_major_locator(MaxNLocator(4))
        top.legend(loc="upper left")
    return figure


def _draw_held_out(top: Axes, bottom: Axes, prediction: Prediction, measured_loss: float) -> None:
    style = {"fmt": "D", "color": "black", "markersize": 4.5, "elinewidth": 0.9, "capsize": 2}
    # The interval belongs to the prediction, so it is drawn around the line and the diamond is the measurement.
    ends = [[prediction.value - prediction.low], [prediction.high - prediction.value]]
    percent = 100 * np.array(ends) / prediction.value
    top.errorbar(prediction.value, prediction.value, yerr=ends, **(style | {"fmt": "none"}))
    bottom.errorbar(prediction.value, 0.0, yerr=percent, **(style | {"fmt": "none"}))
    top.plot(
        prediction.value,
        measured_loss,
        "D",
        color="black",
        markersize=4.5,
        label=f"held-out run, {prediction.level:.0%} predictive interval",
    )
    bottom.plot(prediction.value, 100 * (measured_loss / prediction.value - 1), "D", color="black", markersize=4.5)


def _draw_approach_2(axes: Axes, study: Study, name: str, flops: np.ndarray) -> None:
    law = getattr(study.isoflop, name)
    at = [law.at({"flops": value}, study.level) for value in flops]
    axes.plot(
        flops,
        [interval.value for interval in at],
        "--",
        color=APPROACH_2,
        label=f"approach 2 ({study.level:.0%} limits dotted)",
    )
    for end in ("low", "high"):
        axes.plot(flops, [getattr(interval, end) for interval in at], ":", color=APPROACH_2, linewidth=0.8)
    for valley in study.isoflop.valleys:
        interval = getattr(valley, name)
        axes.errorbar(valley.budget_flops, interval.value, yerr=_arms(interval), **STAR_WITH_BAR)


def _efficient(study: Study, flops: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value and interval ends of params (0), tokens (1) or loss (2) of the parametric law's optimum at each budget."""
    law, values = law_of(study.law.fit), np.concatenate([study.law.fit.array()[None], study.law.draws])
    found = np.stack([efficient_runs(law, values, study.flop_rule, value)[index] for value in flops])
    best, draws = found[:, 0], found[:, 1:]
    low, high = np.quantile(draws, [(1 - study.level) / 2, (1 + study.level) / 2], axis=1)
    return best, low, high


def _fitted_runs(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    points, _ = select(law_of(study.law.fit), table)
    names = table["run"].astype(str) if "run" in table.columns else pd.Series([f"row {i}" for i in range(len(table))])
    runs = table[names.isin(points.runs).to_numpy()].copy()
    if "flops" not in runs.columns:
        runs["flops"] = 6.0 * runs["params"] * runs["tokens"]
    return runs


def _extended(flops: np.ndarray, target: float | None) -> np.ndarray:
    """Thirty budgets from the smallest run to four times the largest, or to a target beyond that."""
    return np.geomspace(flops.min() / 1.3, max(4.0 * flops.max(), (target or 0.0) * 1.2), 30)


def _mark_extrapolation(axes: Axes, study: Study) -> None:
    axes.axvline(study.largest_flops, color="0.45", linewidth=0.7, linestyle=(0, (4, 3)), zorder=1)
    axes.text(
        study.largest_flops,
        0.02,
        " extrapolated",
        transform=axes.get_xaxis_transform(),
        fontsize=6,
        color="0.35",
        ha="left",
        va="bottom",
    )


@contextlib.contextmanager
def _axes(columns: Columns, height_ratio: float, panels: int = 1, stacked: tuple[int, ...] = ()) -> Iterator[tuple]:
    """A figure of printed width with one or more axes; stacked gives the panels' heights, one above the other."""
    if columns not in WIDTH_INCHES:
        raise FigureError(f"columns = {columns!r}: must be one of {', '.join(WIDTH_INCHES)}. Fix: choose one.")
    with matplotlib.style.context(STYLE):
        width = WIDTH_INCHES[columns]
        figure = Figure(figsize=(width, width * height_ratio * (1.0 if columns == "one" else 0.65)))
        FigureCanvasAgg(figure)
        if stacked:
            yield figure, figure.subplots(panels, 1, sharex=True, height_ratios=stacked)
        elif panels > 1 and columns == "two":
            yield figure, figure.subplots(1, panels)
        else:
            yield figure, figure.subplots(panels, 1)


def _legend_above(figure: Figure, axes: Axes, title: str) -> None:
    figure.legend(
        *axes.get_legend_handles_labels(),
        title=title,
        loc="outside upper center",
        ncols=4,
        columnspacing=1.0,
        handletextpad=0.3,
    )


def _plain_log_ticks(axes: Axes, y: bool = True) -> None:
    """Losses span less than a decade: label round values between the powers of ten, as plain numbers."""
    for axis, wanted in ((axes.xaxis, axes.get_xlim()[1] / axes.get_xlim()[0] < 30), (axes.yaxis, y)):
        if wanted:
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())


def _shade(index: int, count: int) -> tuple:
    return matplotlib.colormaps["cividis"](0.08 + 0.75 * index / max(count - 1, 1))


def _arms(interval) -> list[list[float]]:
    return [[max(interval.value - interval.low, 0.0)], [max(interval.high - interval.value, 0.0)]]


def _power_of_ten(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    digits = f"{value / 10**exponent:.2g}"
    return rf"$10^{{{exponent}}}$" if digits == "1" else rf"${digits}\times10^{{{exponent}}}$"

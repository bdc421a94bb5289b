"""Figure of success against samples, one panel for each model, one line for each way of choosing."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.drawing import DARK, GREY, LINES, MARKERS, WARM, Columns, canvas, legend_above, log_ticks
from analysis.laws import evaluate, find
from analysis.studies import WAYS, Answered, CurveLaws, SampleStudy

COLOURS = {"coverage": DARK, "best": WARM, "majority": GREY, "weighted": "black"}
MOST_PANELS = 6
ACROSS = 3
LAW_POINTS = 60


def success_against_samples(found: SampleStudy, columns: Columns = "two") -> Figure:
    """Success against samples by way of choosing, with intervals; the beta-binomial's coverage; where votes end.

    At most six panels, those of the sizes evenly through the table.
    """
    count = len(found.answered)
    shown = np.unique(np.linspace(0, count - 1, min(MOST_PANELS, count)).round().astype(int))
    across = min(ACROSS, len(shown)) if columns == "two" else 1
    down = -(-len(shown) // across)
    with canvas(columns, 0.6 + 2.1 * down, (down, across), sharex=True, sharey=True) as (figure, panels):
        for panel, i in zip(panels.flat, shown):
            _draw(panel, found.answered[i], found.laws[i])
            panel.set_xscale("log")
        for panel in panels.flat[len(shown) :]:
            panel.set_visible(False)
        for panel in panels.flat[max(len(shown) - across, 0) : len(shown)]:
            panel.set_xlabel("samples a problem")
            panel.tick_params(labelbottom=True)
        for panel in panels[:, 0]:
            panel.set_ylabel("problems solved (share)")
        panels.flat[0].set_ylim(-0.03, 1.03)
        log_ticks(panels.flat[0].xaxis)
        legend_above(figure, panels.flat[0], across=3 if columns == "two" else 2)
    return figure


def _draw(panel: Axes, at: Answered, laws: CurveLaws) -> None:
    for i, (way, label) in enumerate(WAYS.items()):
        curve = next((curve for curve in at.curves if curve.way == way), None)
        if curve is None:
            continue
        samples = [point.samples for point in curve.points]
        style = {"color": COLOURS[way], "linestyle": LINES[i], "marker": MARKERS[i]}
        panel.plot(samples, [point.success.value for point in curve.points], label=label, **style)
        low, high = ([getattr(point.success, end) for point in curve.points] for end in ("low", "high"))
        panel.fill_between(samples, low, high, color=COLOURS[way], alpha=0.12, linewidth=0)
        if curve.plateau is not None:
            panel.plot([samples[-1] * 1.5], [curve.plateau.value], marker="_", markersize=8, color=COLOURS[way])
    if laws.alpha is not None and laws.beta is not None:
        grid = np.geomspace(1, at.samples[1], LAW_POINTS)
        constants = np.array([laws.alpha.value, laws.beta.value])
        coverage = evaluate(find("coverage_beta_binomial"), constants, {"samples": grid})
        panel.plot(grid, coverage, color="0.3", linewidth=0.6, linestyle=(0, (1, 1)), label="coverage, beta-binomial")
    if any(curve.plateau for curve in at.curves):
        panel.plot([], [], marker="_", markersize=8, linestyle="none", color="black", label="vote without end")
    panel.set_title(at.title)

"""Every figure: at its printed width, in both formats, reproducible; and what cannot be drawn is refused."""

import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.legend import Legend
from matplotlib.text import Text
from planted_tables import BUDGETS, noisy_sweep, planted_samples, planted_table

from analysis import figures, runs_table
from analysis.drawing import log_ticks, saving, told_apart
from analysis.fit import FitError, select
from analysis.intervals import Interval, profile
from analysis.laws import CHINCHILLA, find
from analysis.sampling import Sampling
from analysis.studies import (
    backtest,
    collapse,
    compare,
    fit_bowls,
    fit_table,
    predict,
    sample_curves,
    sample_study,
    sweep_laws,
    sweep_rows,
)


@pytest.fixture(scope="module")
def table():
    return runs_table.validate(planted_table())


@pytest.fixture(scope="module")
def study(table):
    return fit_table(table, sampling=Sampling(100))


def test_a_legend_counts_rows_where_a_run_has_several(table, study):
    """Checkpoints are drawn a dot each, and are no runs."""
    several = pd.concat([table, table.assign(tokens=1.5 * table["tokens"], flops=1.5 * table["flops"])])
    by_row = fit_table(several.assign(budget_flops=np.nan), sampling=Sampling(20))
    for found, rows, word in ((study, table, "runs"), (by_row, several, "rows")):
        for draw in (figures.loss_against_compute, figures.loss_surface):
            labels = [text.get_text() for legend in draw(rows, found).findobj(Legend) for text in legend.texts]
            assert f"{word} fitted" in labels
        assert figures.residuals(rows, found).axes[-1].get_ylabel() == word


def sweep():
    """Four cells of a learning-rate and batch grid whose best values move with size."""
    rows = [
        {"params": params, "tokens": tokens, "learning_rate": rate, "batch_tokens": batch, "loss_nats": loss}
        for params, tokens in ((1e6, 1e8), (1e6, 1e9), (1e7, 1e8), (1e7, 1e9))
        for rate in 2.0 ** np.arange(-12, -4)
        for batch in 2.0 ** np.arange(12, 19)
        for loss in [3 + 0.02 * np.log(rate * 1e2 * (params / 1e6) ** 0.3) ** 2 + 0.01 * np.log(batch / 4e4) ** 2]
    ]
    return pd.DataFrame(rows)


def swept():
    """Its rows and their bowls, one of which has no optimum."""
    rows, _ = sweep_rows(sweep().query("params < 1e7 or tokens < 1e9 or learning_rate < 0.002"))
    return rows, fit_bowls(rows)


def curves(seeds=3, noise=0.004):
    """Learning curves that are one curve by construction: loss = 2 + size^-0.3 * f(share of compute) * noise."""
    generator, share, rows = np.random.default_rng(0), np.geomspace(1e-3, 1, 60), []
    for run, (size, seed) in enumerate((s, seed) for s in (64, 128, 256, 512) for seed in range(seeds)):
        own = 1 + noise * generator.standard_normal()  # a seed's luck, which normalising takes away
        for x in share:
            loss = 2 + 8 * size**-0.3 * x**-0.2 * own
            rows.append({"run": run, "size": size, "seed": seed, "compute": x * size**2 * 1e12, "loss": loss})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def drawn(table, study):
    """Name -> a function of the number of columns."""
    far = predict(study, {"params": 3e6, "tokens": 2e8})
    past = backtest(CHINCHILLA, table, cuts=[1e12, 3e12], sampling=Sampling(20))
    held = profile(study.law.fit, select(study.law.fit.law, table)[0])
    compared = {
        name: {"ours": Interval(0.5, 0.4, 0.6), "another, whose name is long": Interval(0.6, 0.3, 0.7)}
        for name in ("params", "tokens")
    }
    two = pd.concat([table, table.assign(run=table["run"] + "-b", family="lstm", loss_nats=1.1 * table["loss_nats"])])
    families = compare(
        two.assign(learning_rate=1e-3, exact_match_copy_5=0.9, exact_match_copy_9=0.4), sampling=Sampling(20)
    )
    on_top = collapse(curves(), floor=2.0)
    followed = sweep_laws(noisy_sweep(0, 1e-3))
    answered = planted_samples(np.random.default_rng(0), 0.5, 1.5, 12, 8)
    sampled = sample_study(sample_curves(answered.assign(answer=answered["correct"]), sampling=Sampling(20)))
    moved = [
        SimpleNamespace(activation=f"period0.layer{i}_mixer", step=step, sizes=(64, 128), changes=(0.1, 0.2), slope=1.0)
        for i in range(5)
        for step in (1, 2)
    ]
    return {
        "isoflop_valleys": lambda c: figures.isoflop_valleys(study, c),
        "loss_against_compute": lambda c: figures.loss_against_compute(table, study, c, held_out=(far.flops, 1.5)),
        "optimal_allocation": lambda c: figures.optimal_allocation(table, study, c, target_flops=1e15),
        "loss_surface": lambda c: figures.loss_surface(table, study, c, target_flops=1e14),
        "residuals": lambda c: figures.residuals(table, study, c),
        "prediction": lambda c: figures.prediction_against_measurement(table, study, c, far, far.value * 1.01),
        "bootstrap_cloud": lambda c: figures.bootstrap_cloud(study.law, study.level, c),
        "profile_likelihoods": lambda c: figures.profile_likelihoods(held, study.law, study.level, c),
        "exponents_compared": lambda c: figures.exponents_compared(compared, 0.9, c, published=compared),
        "backtest_errors": lambda c: figures.backtest_errors(past, c),
        "coordinate_changes": lambda c: figures.coordinate_changes(moved, "width", c),
        "hyperparameter_bowls": lambda c: figures.hyperparameter_bowls(*swept(), c),
        "optima_against_laws": lambda c: figures.optima_against_laws(followed, c),
        "loss_by_family": lambda c: figures.loss_by_family(families, c),
        "measure_by_length": lambda c: figures.measure_by_length(families, columns=c),
        "success_against_samples": lambda c: figures.success_against_samples(sampled, c),
        "learning_curve_collapse": lambda c: figures.learning_curve_collapse(on_top, c, label="width"),
    }


def test_all_figures_are_here(drawn):
    functions = {name for name in figures.__all__ if callable(getattr(figures, name)) and name.islower()}
    functions -= {"save", "save_all"}
    assert functions - set(drawn) == {"prediction_against_measurement"} and len(drawn) == len(functions)


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["one", "two"])
def test_figures_have_their_printed_width(tmp_path, drawn, columns):
    for name, draw in drawn.items():
        figure = draw(columns)
        assert figure.get_size_inches()[0] == figures.WIDTH_INCHES[columns]
        png, pdf = figures.save(figure, tmp_path / name)
        # 200 dots per inch; a fraction of a dot is cut off.
        assert abs(imread(png).shape[1] - 200 * figures.WIDTH_INCHES[columns]) <= 1
        assert pdf.read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_the_same_figure_gives_the_same_bytes_wherever_it_is_drawn(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(saving, "FIGURES_EACH", 1)
    monkeypatch.setattr(saving, "usable_cores", lambda: (0, 1))
    names = ("isoflop_valleys", "loss_surface", "learning_curve_collapse", "loss_by_family")
    shared_out = figures.save_all({tmp_path / "shared" / name: partial(drawn[name], "one") for name in names})
    alone = [path for name in names for path in figures.save(drawn[name]("one"), tmp_path / "alone" / name)]
    assert [path.name for path in shared_out] == [path.name for path in alone]
    assert [path.read_bytes() for path in shared_out] == [path.read_bytes() for path in alone]


def test_every_figure_can_be_sent_to_a_worker_and_its_fault_is_heard(tmp_path, drawn, monkeypatch):
    for draw in drawn.values():
        pickle.dumps(draw("one"))
    monkeypatch.setattr(saving, "FIGURES_EACH", 1)
    monkeypatch.setattr(saving, "usable_cores", lambda: (0, 1))
    monkeypatch.setattr(saving.pickle, "dumps", lambda figures: b"no figures")
    with pytest.raises(RuntimeError, match="ended with 1:\n(.|\n)*UnpicklingError"):
        figures.save_all({tmp_path / name: partial(drawn[name], "one") for name in ("loss_surface", "residuals")})


def test_a_bowl_is_drawn_as_it_was_fitted():
    """The curve of an axis is the least of the quadratic at each value, and the star its lowest point."""
    rows, bowls = swept()
    assert [bool(bowl.reason) for bowl in bowls] == [False, False, False, True]
    for panel, axis in zip(figures.hyperparameter_bowls(rows, bowls).axes, ("learning_rate", "batch_tokens")):
        curves = [line.get_xydata() for line in panel.lines if len(line.get_xydata()) == 60]
        stars = [line.get_xydata()[0] for line in panel.lines if line.get_marker() == "*" and len(line.get_xydata())]
        assert len(curves) == len(stars) == 3
        for bowl, curve, star in zip(bowls, curves, stars):
            assert star[0] == bowl.optimum[axis] and star[1] == bowl.loss_nats - bowl.best_loss_nats
            assert panel.get_ylim()[0] < star[1] < panel.get_ylim()[1]
            assert abs(curve[:, 1].min() - star[1]) < 1e-3
            by_hand = {"learning_rate": 0.02, "batch_tokens": 0.01}[axis] * np.log(curve[:, 0] / star[0]) ** 2
            np.testing.assert_allclose(curve[:, 1] - star[1], by_hand, atol=0.1 * by_hand.max())


def test_optima_stand_with_their_intervals_over_what_the_other_cells_say():
    found = sweep_laws(noisy_sweep(0, 1e-3))
    for panel, axis in zip(figures.optima_against_laws(found).axes, found.axes, strict=True):
        points = [line.get_xydata()[0] for line in panel.lines if line.get_marker() == "o" and len(line.get_xydata())]
        bars = [bar.get_segments()[0][:, 1] for bar in panel.collections if len(bar.get_segments())]
        assert len(points) == len(bars) == len(found.bowls)
        for bowl, one, point, bar in zip(found.bowls, found.followed, points, bars, strict=True):
            assert tuple(point) == (one.recommended[axis], bowl.optimum[axis])
            assert sorted(bar) == pytest.approx([bowl.intervals[axis].low, bowl.intervals[axis].high])


def test_the_bottom_of_a_bowl_between_two_runs_is_in_the_panel():
    """Four learning rates about the best, which none of them is: the fit lies far below all of them."""
    rates = 1e-3 * 4.0 ** np.array([-1.5, -0.5, 0.5, 1.5])
    loss = 3 * np.exp(0.01 * np.log(rates / 1e-3) ** 2)
    table = pd.DataFrame({"params": 1e6, "tokens": 1e8, "learning_rate": rates, "loss_nats": loss})
    rows, _ = sweep_rows(table, axes=["learning_rate"])
    (panel,) = figures.hyperparameter_bowls(rows, fit_bowls(rows, axes=["learning_rate"])).axes
    (star,) = [line.get_ydata()[0] for line in panel.lines if line.get_marker() == "*" and len(line.get_ydata())]
    assert panel.get_ylim()[0] < star < 0


def test_what_cannot_be_drawn_is_refused(table, study):
    with pytest.raises(figures.FigureError, match="columns = 'three'"):
        figures.isoflop_valleys(study, "three")
    with pytest.raises(figures.FigureError, match="nothing to compare"):
        figures.exponents_compared({}, 0.9)
    tasks = pd.DataFrame({"task_loss": np.linspace(0.5, 1.5, 12)})
    tasks["accuracy"] = 0.9 - 0.4 * tasks["task_loss"] + 0.01 * np.cos(np.arange(12))
    accuracy = fit_table(tasks, law=find("task_accuracy"), sampling=Sampling(20))
    with pytest.raises(figures.FigureError, match="law = 'task_accuracy': its output may be zero"):
        figures.prediction_against_measurement(tasks, accuracy)
    assert figures.residuals(tasks, accuracy, "one").axes[0].get_ylabel() == "measured minus\nfitted (accuracy)"
    with pytest.raises(FitError, match="its output accuracy is no loss to be made least"):
        figures.loss_surface(tasks, accuracy)


def test_curves_collapse_where_they_are_one_and_not_where_they_are_not():
    """Qiu et al. 2025: normalising takes away a seed's luck, so sizes agree better than seeds of one size do."""
    found = collapse(curves(), floor=2.0)
    # Curves are read off by linear interpolation between 60 points a factor 1.124 apart: (ln 1.124)^2 / 8 of a slope
    # and curvature below 1 is under 0.2 %.
    assert found.across_sizes.max() < 0.002 < found.across_seeds.mean()
    assert found.sizes == (64, 128, 256, 512) and len(found.curves) == 12 and found.across_sizes[-1] < 1e-12
    bent = curves()
    bent["loss"] += np.where(bent["size"] == 512, 0.2 * np.cos(np.log(bent["compute"])), 0.0)
    assert collapse(bent, floor=1.5).across_sizes[:-1].mean() > 0.01
    alone = collapse(curves(seeds=1), floor=2.0)
    assert alone.across_seeds is None


def test_a_collapse_finds_its_own_floor_and_refuses_what_it_cannot_use():
    history = curves(noise=0.0)
    assert collapse(history).floor == pytest.approx(2.0, abs=0.01)
    for change, message in (
        (lambda h: h.drop(columns="seed"), "history: missing column 'seed'"),
        (lambda h: h[h["size"] == 64], "curves of one size cannot collapse"),
    ):
        with pytest.raises(FitError, match=message):
            collapse(change(history), floor=1.0)
    with pytest.raises(FitError, match="floor = 9: must lie below every loss"):
        collapse(history, floor=9.0)


def test_loss_at_the_edge_is_marked(table, study):
    edges = [line for line in figures.loss_against_compute(table, study).axes[0].lines if len(line.get_xdata()) == 2]
    assert any(line.get_xdata()[0] == BUDGETS[-1] for line in edges)
    # Along its line, at the top, where the loss has fallen, or at the foot of what rises.
    for figure, height in (
        (figures.loss_against_compute(table, study), 0.98),
        (figures.optimal_allocation(table, study), 0.02),
    ):
        (label,) = [text for text in figure.axes[0].texts if text.get_text() == "extrapolated"]
        assert label.get_rotation() == 90 and label.xy == (BUDGETS[-1], height)


def said(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_a_legend_tells_all_its_budgets_apart(table):
    """Two digits are enough for most; two cuts that round alike get as many as they need."""
    assert told_apart([1e12, 2.5e12]) == ["10¹²", "2.5×10¹²"]
    assert told_apart([6e11, 6.01e11]) == ["6×10¹¹", "6.01×10¹¹"]
    close = backtest(CHINCHILLA, table, cuts=[6.01e11, 6.04e11], sampling=Sampling(20))
    labels = [text.get_text() for text in figures.backtest_errors(close).legends[0].get_texts()]
    assert len(labels) == len(set(labels)) == 2


def test_many_valleys_are_all_drawn_and_every_few_named():
    many = fit_table(planted_table(sizes=4, budgets=tuple(np.geomspace(1e11, 1e14, 23))), sampling=Sampling(20))
    figure = figures.isoflop_valleys(many)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[0] == "10¹¹" and names[-2:] == ["10¹⁴", "optimum"] and len(names) == 11
    assert sum(len(line.get_xdata()) == 4 for line in figure.axes[0].lines) == len(many.isoflop.valleys) == 23


def test_ticks_of_a_logarithmic_axis_are_even_in_its_logarithm():
    """Even steps on an axis from 25 to 450 would label its upper end alone."""
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(25, 450))
    log_ticks(axes.xaxis, 3)
    assert [tick for tick in axes.get_xticks() if 25 <= tick <= 450] == [30, 100, 300]


def test_ticks_close_together_have_labels_of_their_own():
    axes = Figure().subplots()
    axes.set(xscale="log", xlim=(1.95e5, 2.12e5))
    log_ticks(axes.xaxis, 3)
    labels = [label for label in axes.xaxis.get_major_formatter().format_ticks(axes.get_xticks()) if label]
    assert len(labels) > 2 and len(set(labels)) == len(labels)


def test_contour_labels_lie_below_the_runs_and_the_highest_mark_inside_its_axis(drawn, table, study):
    axes = figures.loss_surface(table, study).axes[0]
    runs = next(line for line in axes.lines if len(line.get_xdata()) == len(table))
    assert axes.texts and all(text.get_zorder() < runs.get_zorder() for text in axes.texts)
    width, height = (np.ptp(np.log(limits)) for limits in (axes.get_xlim(), axes.get_ylim()))
    for text in axes.texts:  # about a twentieth of the panel high, and twice as wide
        x, y = (np.log(at) for at in text.get_position())
        away = (
            np.abs(np.log(runs.get_xdata()) - x) / (0.05 * width),
            np.abs(np.log(runs.get_ydata()) - y) / (0.025 * height),
        )
        assert np.hypot(*away).min() > 1
    marks = drawn["backtest_errors"]("two").axes[1]
    assert marks.get_ylim()[1] > 1.05 * marks.lines[0].get_ydata().max()


def test_runs_that_approach_2_left_out_are_marked_among_the_valleys(table, study):
    loss = table["loss_nats"].copy()
    loss.iloc[10] = 11.0
    found = fit_table(table.assign(loss_nats=loss), sampling=Sampling(20))
    assert [item.run for item in found.isoflop.left_out] == [table["run"].iloc[10]]
    figure = figures.isoflop_valleys(found, table=table.assign(loss_nats=loss))
    (mark,) = [line for line in figure.axes[0].lines if line.get_label() == "left out"]
    assert mark.get_xdata() == [table["params"].iloc[10]] and mark.get_ydata() == [figure.axes[0].get_ylim()[1]]
    assert "left out" in said(figure) and said(figure).split()[0] == "11" and figure.axes[0].get_ylim()[1] < 10
    assert "left out" not in said(figures.isoflop_valleys(study, table=table))


def test_cells_of_small_whole_numbers_are_named_as_they_are_and_all_marks_are_in_the_panel():
    table = sweep().assign(group=lambda rows: rows["tokens"].rank(method="dense") - 1.0)
    rows, _ = sweep_rows(table.query("learning_rate < 0.01"), ("group", "params"))
    figure = figures.hyperparameter_bowls(rows, fit_bowls(rows, cell=("group", "params")))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:4] == ["0, 10⁶", "0, 10⁷", "1, 10⁶", "1, 10⁷"]
    for panel in figure.axes:
        marks = [line.get_ydata() for line in panel.lines if line.get_marker() not in ("None", "*")]
        marks = [heights for heights in marks if len(heights)]  # of the legend's lines there are none
        assert max(map(np.max, marks)) < panel.get_ylim()[1]

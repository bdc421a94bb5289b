"""Figures of constants and residuals: what is drawn is what the tables say, at zero, at an edge or beyond it."""

import dataclasses

import numpy as np
import pytest
from matplotlib.text import Text
from planted_tables import planted_table

from analysis import figures, runs_table
from analysis.intervals import AT_BOUND, NOT_DETERMINED
from analysis.laws import CHINCHILLA, evaluate
from analysis.sampling import Sampling
from analysis.studies import fit_table, predict


@pytest.fixture(scope="module")
def table():
    return runs_table.validate(planted_table())


@pytest.fixture(scope="module")
def study(table):
    return fit_table(table, sampling=Sampling(100))


def with_constant(study, at, draws, **changed):
    """The study's estimate with other draws and another interval of one constant, by its place."""
    name = study.law.fit.law.names[at]
    changed = {**study.law.intervals, name: dataclasses.replace(study.law.intervals[name], **changed)}
    everything = study.law.draws.copy()
    everything[:, at] = draws
    return dataclasses.replace(study.law, draws=everything, intervals=changed)


def said(figure):
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def bars(panel):
    """Ends of the intervals drawn in a panel, and the marks at them."""
    ends = [line for line in panel.lines if line.get_label() in tuple("|<>")]
    return [(line.get_xdata()[0], line.get_marker()) for line in ends]


def test_a_constant_at_zero_is_drawn_there_on_a_linear_axis_in_every_panel(study):
    """Draws of a constant at its bound are 1e-14 or 1e-18, for which a logarithmic axis had thirty decades."""
    draws = np.geomspace(1e-18, 1e-14, len(study.law.draws))
    draws[-2:] = 0.05
    at_zero = with_constant(study, 0, draws, value=0.0, low=0.0, high=0.04, note=AT_BOUND)
    panels = figures.bootstrap_cloud(at_zero, study.level).axes[::5]
    for panel in panels:
        stars = [line.get_xdata() for line in panel.lines if line.get_marker() == "*"]
        assert panel.get_xscale() == "linear" and -0.01 < panel.get_xlim()[0] < 0 < panel.get_xlim()[1] < 0.06
        assert stars == [[0.0]]
    assert bars(panels[0]) == [(0.0, "|"), (0.04, "|")]
    some = study.law.draws[:, 0].copy()
    some[::4] = 1e-100
    panel = figures.bootstrap_cloud(with_constant(study, 0, some, low=0.0), study.level).axes[5]
    assert panel.get_xscale() == "linear" and sum(panel.lines[0].get_xdata() == 0) == len(some[::4])


def test_a_constant_of_many_decades_that_some_resamples_put_at_zero_stands_at_an_edge(study):
    value = study.law.intervals["A"].value
    draws = value * np.geomspace(1e-3, 1e3, len(study.law.draws))
    draws[::4] = 1e-100
    wide = with_constant(study, 1, draws, low=0.0, high=500 * value)
    figure = figures.bootstrap_cloud(wide, study.level)
    low, _ = figure.axes[6].get_xlim()
    assert figure.axes[6].get_xscale() == "log" and 1e-7 * value < low < 1e-3 * value
    assert "at a lower edge: zero" in said(figure)
    assert "edge" not in said(figures.bootstrap_cloud(study.law, 0.9))


def test_the_bars_of_a_cloud_are_the_intervals_of_the_table(study):
    """An interval that its profile widened beyond all resamples has an arrow there, and its ends in figures."""
    name, draws = study.law.fit.law.names[0], study.law.draws[:, 0]
    figure = figures.bootstrap_cloud(study.law, study.level)
    interval = study.law.intervals[name]
    assert bars(figure.axes[0]) == [(interval.low, "|"), (interval.high, "|")]
    assert f"{interval.low:.4g} to {interval.high:.4g}" in said(figure) and "arrows" not in said(figure)
    wider = with_constant(study, 0, draws, low=0.0, high=np.inf, note="open above")
    figure = figures.bootstrap_cloud(wider, study.level)
    assert [mark for _, mark in bars(figure.axes[0])] == ["<", ">"]
    assert "0 to open" in said(figure) and "arrows: an interval goes on beyond the resamples" in said(figure)


def test_a_profile_shows_the_interval_of_the_table_beside_its_own(study):
    name, profiled = study.law.fit.law.names[0], study.profiles
    wide = profiled[name].high - profiled[name].low
    low, high = profiled[name].low - wide, profiled[name].high + 2 * wide  # as where rows of a run go together
    other = with_constant(study, 0, study.law.draws[:, 0], low=low, high=high)
    figure = figures.profile_likelihoods(profiled, other, study.level)
    assert bars(figure.axes[0]) == [(low, "|"), (high, "|")]
    assert figure.axes[0].get_xlim()[0] < low and high < figure.axes[0].get_xlim()[1]
    assert "90% interval of the table" in said(figure) and "profile's 90% limit" in said(figure)
    unknown = with_constant(study, 0, study.law.draws[:, 0], low=0.0, high=np.inf, note=NOT_DETERMINED)
    figure = figures.profile_likelihoods(profiled, unknown, study.level)
    assert [mark for _, mark in bars(figure.axes[0])] == ["<", ">"]


def test_a_law_that_meets_its_points_exactly_is_drawn():
    """Its constants differ by rounding: each is one value with ticks around it, and no text at an axis' end."""
    study = fit_table(planted_table(noise=0.0), sampling=Sampling(20))
    for figure in (
        figures.bootstrap_cloud(study.law, study.level),
        figures.profile_likelihoods(study.profiles, study.law, study.level),
    ):
        figure.canvas.draw()
        for panel in (axes for axes in figure.axes if axes.get_visible() and axes.axison):
            low, high = panel.get_xlim()
            assert high - low > 0.05 * high and panel.xaxis.get_offset_text().get_text() == ""
            assert all(len(label.get_text()) < 8 for label in panel.get_xticklabels())


def test_runs_far_off_stand_at_the_edge_with_their_value_and_hide_no_other(table, study):
    """Both figures draw one quantity; the scale and the axis are those of the other runs."""
    loss = table["loss_nats"].copy()
    loss.iloc[[3, 10]] = [4.5 * loss.iloc[3], 0.3 * loss.iloc[10]]
    spoilt = table.assign(loss_nats=loss)
    found = fit_table(spoilt, sampling=Sampling(20))
    fitted = evaluate(CHINCHILLA, found.law.fit.array(), {name: spoilt[name] for name in ("params", "tokens")})
    percent = 100 * (loss.to_numpy() / fitted - 1)
    both = figures.residuals(spoilt, found), figures.prediction_against_measurement(spoilt, found)
    for panel in (both[0].axes[0], both[1].axes[1]):
        marks = {line.get_marker(): line.get_ydata() for line in panel.lines if len(line.get_xdata())}
        np.testing.assert_allclose(np.sort(marks["o"]), np.sort(np.delete(percent, [3, 10])))
        assert len(marks["^"]) == len(marks["v"]) == 1 and panel.get_ylim()[1] < 0.1 * percent[3]
        assert sorted(text.get_text() for text in panel.texts) == sorted(f"{percent[i]:+.3g}%" for i in (3, 10))
        assert panel.get_ylabel() == "measured minus\nfitted (%)"
    assert f"two robust residual scales:\n±{200 * found.checks.robust_scale:.2g}%" in said(both[0])
    assert "1 further" in said(both[0]) and "further" not in said(figures.residuals(table, study))


def test_a_held_out_run_far_off_widens_the_axis_for_all_runs(table, study):
    far = predict(study, {"params": 3e6, "tokens": 2e8})
    panel = figures.prediction_against_measurement(table, study, "one", far, 1.5 * far.value).axes[1]
    low, high = panel.get_ylim()
    assert high > 50 and low == -high and not any(line.get_marker() in tuple("^v") for line in panel.lines)


def test_residuals_of_rounding_are_drawn_at_zero():
    exact = planted_table(noise=0.0)
    for panel in figures.residuals(exact, fit_table(exact, sampling=Sampling(20))).axes[:2]:
        assert panel.get_ylim()[1] > 0.5  # percent

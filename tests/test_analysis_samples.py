"""What more samples buy: planted curves, laws and sizes come back, intervals hold, and what cannot be said is not."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
import tyro
from planted_tables import planted_samples

from analysis.command.fit import fit
from analysis.command.samples import samples
from analysis.figures import success_against_samples
from analysis.fit import FitError
from analysis.laws import evaluate, find
from analysis.report import sample_sections
from analysis.report.document import Number, leaves
from analysis.runs_table import TableError
from analysis.sampling import Sampling
from analysis.studies import sample_curves, sample_study, success_table
from analysis.studies.sample_laws import _peak, fitted
from analysis.studies.samples import Means

FEW = Sampling(bootstraps=40)
SUCCESSES = {1e6: 2, 1e7: 5, 1e8: 8}  # of ten samples, in every problem: logits -1.386, 0 and 1.386


def table_of(successes, samples=10, problems=4, **columns):
    """Every problem has so many right among its samples; right answers are "a", wrong ones "b", "c", "b", ..."""
    rows = [
        {"problem": f"q{i}", "correct": int(j < successes), "answer": "a" if j < successes else "bc"[j % 2], **columns}
        for i in range(problems)
        for j in range(samples)
    ]
    return pd.DataFrame(rows)


def sized():
    tables = [table_of(count, params=size, flops=size**2) for size, count in SUCCESSES.items()]
    return pd.concat(tables, ignore_index=True).assign(tokens_per_sample=30, score=lambda table: table["correct"])


@pytest.fixture(scope="module")
def sizes_study():
    return sample_study(sample_curves(sized(), sampling=FEW))


def curve_of(found, way, cell=0):
    return next(curve for curve in found.pooled[cell].answered.curves if curve.way == way)


def chance_of(successes, k, samples=10):
    failed = [samples - successes - i for i in range(k)]
    return 1 - np.prod([max(left, 0) / (samples - i) for i, left in enumerate(failed)])


def test_equal_problems_have_the_curves_of_one():
    found = sample_curves(sized(), sampling=FEW)
    assert found.cell == ("params", "flops") and [one.answered.params for one in found.pooled] == list(SUCCESSES)
    for i, count in enumerate(SUCCESSES.values()):
        shown = curve_of(found, "coverage", i)
        assert [point.samples for point in shown.points] == [1, 2, 4, 8]
        expected = [chance_of(count, k) for k in (1, 2, 4, 8)]
        assert [point.success.value for point in shown.points] == pytest.approx(expected, rel=1e-12)
        assert [p.success.value for p in curve_of(found, "best", i).points] == pytest.approx(expected, rel=1e-12)
        assert curve_of(found, "weighted", i).plateau.value == 1.0  # a score that knows has no weight for wrong answers
    plateaus = [curve_of(found, "majority", i).plateau.value for i in range(3)]
    assert plateaus == [0.0, 1.0, 1.0]  # 2 against 4 and 4; 5 against 3 and 2


def test_a_factor_of_size_is_read_between_the_sizes_and_flagged_beyond(sizes_study):
    worth = sizes_study.worth
    factors = {(one.title.split()[0], one.way, one.samples): one for one in worth.factors}
    two = factors["params=1e+06", "best", 2]
    share = (np.log(chance_of(2, 2) / (1 - chance_of(2, 2))) - np.log(0.25)) / np.log(4)
    assert worth.size == "params" and two.factor.value == pytest.approx(10**share) and not two.extrapolated
    beyond = factors["params=1e+08", "best", 2]
    share = (np.log(chance_of(8, 2) / (1 - chance_of(8, 2))) - np.log(4)) / np.log(4)
    assert beyond.factor.value == pytest.approx(10**share) and beyond.extrapolated
    assert not np.isfinite(factors["params=1e+08", "coverage", 4].factor.value)  # a success of 1 has no size


def planted_success(worth):
    sizes, counts = np.repeat([1e18, 1e19, 1e20], 7), np.tile(2.0 ** np.arange(7), 3)
    law = find("samples_worth")
    return {"flops": sizes, "samples": counts}, evaluate(
        law, np.array([1e19, 0.4, worth]), {"flops": sizes, "samples": counts}
    )


def test_a_planted_trade_comes_back_with_the_spread_of_its_resamples():
    """Resamples that follow the law with other constants have those constants in their draws."""
    inputs, success = planted_success(0.6)
    others = np.linspace(0.5, 0.7, 21)
    draws = np.stack([planted_success(worth)[1] for worth in others])
    law, note = fitted(find("samples_worth"), inputs, Means(success, draws, draws), FEW)
    assert note == "" and law.fit.values == pytest.approx({"middle": 1e19, "k": 0.4, "worth": 0.6}, rel=1e-6)
    np.testing.assert_allclose(law.draws[:, 2], others, rtol=1e-6)


def test_the_best_by_score_turns_where_its_law_is_greatest():
    law, counts = find("best_of_n"), np.geomspace(1, 1e4, 100_001)
    for alpha, beta in ((0.4, 0.12), (0.3, 0.06)):
        greatest = counts[np.argmax(evaluate(law, np.array([alpha, beta]), {"samples": counts}))]
        assert _peak(np.array([[alpha, beta]]))[0] == pytest.approx(greatest, rel=1e-3)
    assert _peak(np.array([[-0.1, 0.1], [0.1, 0.0]])).tolist() == [1.0, np.inf]


def test_intervals_hold_what_is_planted_as_often_as_they_promise():
    """Sixty tables: at 90 % more than 13 miss with probability 0.002, and fewer than one with 0.002."""
    generator, missed = np.random.default_rng(0), np.zeros(2, int)
    truth = evaluate(find("coverage_beta_binomial"), np.array([0.6, 1.8]), {"samples": np.array([4.0])}).item()
    for seed in range(60):
        table = planted_samples(generator, 0.6, 1.8, 60, 12)
        curves = sample_curves(table, sampling=Sampling(200, 0.9, seed))
        (laws,) = sample_study(curves).laws if seed < 12 else (None,)
        missed[0] += not curve_of(curves, "coverage").points[2].success.contains(truth)
        missed[1] += laws is not None and not laws.alpha.contains(0.6)
    assert 1 <= missed[0] <= 13 and missed[1] <= 4, missed  # five of twelve with probability 0.004


def over_optimised(generator, problems=30):
    """Of sixteen samples of a problem the top score is wrong, and the next three are the right ones."""
    scores = np.tile(np.arange(16.0), (problems, 1))
    correct = np.tile(np.isin(np.arange(16), (12, 13, 14)), (problems, 1))
    correct[: problems // 3] |= generator.random((problems // 3, 16)) < 0.1  # problems differ
    return pd.DataFrame(
        {"problem": np.repeat(np.arange(problems), 16), "correct": correct.ravel() * 1, "score": scores.ravel()}
    )


def test_a_score_that_is_wrong_at_its_top_makes_the_best_fall():
    found = sample_curves(over_optimised(np.random.default_rng(0)), sampling=FEW)
    best = curve_of(found, "best")
    assert best.best in (4, 8) and best.fall.high < 0 and best.enough == best.best
    assert curve_of(found, "coverage").fall is None and curve_of(found, "coverage").best == 16


def test_ways_that_gain_nothing_are_enough_with_one_sample():
    found = sample_curves(table_of(5).assign(score=1.0), sampling=FEW)
    assert curve_of(found, "best").enough == 1 and curve_of(found, "best").fall is None
    assert [point.success.value for point in curve_of(found, "best").points] == pytest.approx([0.5] * 4)


def test_a_problem_with_fewer_samples_is_left_out_at_more_and_counted():
    table = pd.concat([table_of(5), table_of(2, samples=3, problems=1).assign(problem="short")])
    found = sample_curves(table, sampling=FEW)
    shown = curve_of(found, "coverage").points
    assert [(point.samples, point.problems) for point in shown] == [(1, 5), (2, 5), (4, 4), (8, 4)]
    assert shown[0].success.value == pytest.approx((4 * 0.5 + 2 / 3) / 5)
    assert found.pooled[0].shared.tolist() == [True, True, False, False]
    study = sample_study(found)
    assert study.laws[0].power is None and "for 2 points, and the law needs 3" in study.laws[0].power_note
    counts = [str(leaf) for leaf in leaves(sample_sections(study)[0]) if isinstance(leaf, Number) and leaf.form == "d"]
    assert counts[-7:] == ["4", "4", "1", "8", "4", "1", "5"]  # samples, problems, without as many; at last the plateau


def test_problems_without_a_score_are_named_and_have_the_other_ways():
    table = table_of(5).assign(score=1.0)
    table.loc[3, "score"] = np.nan
    found = sample_curves(table, sampling=FEW)
    assert [point.problems for point in curve_of(found, "best").points] == [3] * 4
    assert [point.problems for point in curve_of(found, "majority").points] == [4] * 4
    assert [one.run for one in found.pooled[0].answered.short] == ["q0"]


def test_one_resample_of_problems_serves_all_sizes():
    """Two sizes that answer alike differ by nothing, so that a factor between them has no width."""
    alike = planted_samples(np.random.default_rng(0), 1.0, 1.0, 12, 8)
    table = pd.concat([alike.assign(params=1e6), alike.assign(params=1e7)])
    found = sample_curves(table, sampling=FEW)
    first, second = (one.values["coverage"] for one in found.pooled)
    assert np.array_equal(found.resampled.means(first).draws, found.resampled.means(second).draws)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="problem"), "missing column 'problem'. Fix: add it, or name yours, as --col"),
        (lambda table: table.assign(correct=0.3), "correct = 0.3: must be 0 or 1"),
        (lambda table: table.assign(problem="the same"), "problem: 1 value; intervals resample problems.* at least 3"),
    ],
)
def test_tables_that_say_nothing_are_refused(change, message):
    with pytest.raises(FitError, match=message):
        sample_curves(change(table_of(5)), sampling=FEW)


def test_sizes_that_are_not_sizes_have_no_factor():
    twice = pd.concat([table_of(5, params=1e6, temperature=t) for t in (0.5, 1.0)])
    worth = sample_study(sample_curves(twice, ("params", "temperature"), FEW)).worth
    assert worth.note.startswith("several cells have the same params") and not worth.factors
    assert worth.laws["coverage"] is None and worth.law_notes["coverage"].startswith("0 cells with 0 known flops")
    unsized = pd.concat([table_of(5, temperature=t) for t in (0.5, 1.0)])
    worth = sample_study(sample_curves(unsized, ("temperature",), FEW)).worth
    assert worth.size == "" and worth.note.startswith("fewer than two cells have params or flops")


def test_no_success_at_all_is_said_and_not_fitted():
    (laws,) = sample_study(sample_curves(table_of(0), sampling=FEW)).laws
    assert laws.power is None and laws.alpha is None and laws.difficulty_note == "no sample is right"


def test_the_command_prints_draws_and_writes_tables_that_fit_reads(tmp_path, capsys):
    generator = np.random.default_rng(0)
    tables = []
    for size, alpha in ((1e6, 0.4), (4e6, 0.8), (1.6e7, 1.6)):
        table = planted_samples(generator, alpha, 2.0, 20, 16).assign(N=size, flops=120 * size**2, tokens_per_sample=20)
        wrong = generator.integers(1, 4, len(table))
        noise = generator.normal(size=len(table))
        tables.append(table.assign(answer=np.where(table["correct"] == 1, 0, wrong), score=table["correct"] + noise))
    pd.concat(tables).to_csv(tmp_path / "samples.csv", index=False)
    files = ["--out", f"{tmp_path}/points.csv", "--json", f"{tmp_path}/found.json", "--figures", f"{tmp_path}/report"]
    tyro.cli(samples, args=[f"{tmp_path}/samples.csv", "--column", "params=N", "--bootstraps", "40", *files])
    shown = " ".join(capsys.readouterr().out.split())
    for title in ("Success against samples", "Where more samples stop helping", "Laws of coverage", "worth in params"):
        assert title in shown
    assert "score is below 0 in some samples" in shown and "extrapolated" in shown
    found = json.loads((tmp_path / "found.json").read_text())
    assert [at["params"] for at in found["answered"]] == [1e6, 4e6, 1.6e7]
    written = sorted(str(path.relative_to(tmp_path / "report")) for path in (tmp_path / "report").rglob("*.*"))
    figure = "figures/success_against_samples"
    assert written == [f"{figure}.pdf", f"{figure}.png", "report.md", "samples.json"]
    asked = ["--law", "coverage", "--where", "way=coverage", "params=4e6", "--objective", "least_squares"]
    tyro.cli(fit, args=[f"{tmp_path}/points.csv", *asked, "--bootstraps", "30", "--json", f"{tmp_path}/law.json"])
    values = json.loads((tmp_path / "law.json").read_text())["law"]["fit"]["values"]
    assert values == pytest.approx(found["laws"][1]["power"]["fit"]["values"], rel=1e-4)
    capsys.readouterr()
    with_tokens = pd.concat(tables).drop(columns="flops").assign(tokens=generator.integers(5, 50, 960))
    with_tokens.rename(columns={"N": "params"}).to_csv(tmp_path / "tokens.csv", index=False)
    tyro.cli(samples, args=[f"{tmp_path}/tokens.csv", "--bootstraps", "20", "--json", f"{tmp_path}/tokens.json"])
    answered = json.loads((tmp_path / "tokens.json").read_text())["answered"]  # a sample's tokens price no training
    assert [at["cell"] for at in answered] == [{"params": size} for size in (1e6, 4e6, 1.6e7)]
    capsys.readouterr()
    with pytest.raises(TableError, match="missing column.* 'problem'"):
        tyro.cli(samples, args=[f"{tmp_path}/points.csv"])


def test_the_table_of_success_has_a_row_for_each_way_and_number():
    table = success_table(sample_curves(sized(), sampling=FEW))
    assert len(table) == 3 * 4 * 4 and table["run"].is_unique
    best = table[(table["way"] == "best") & (table["params"] == 1e7)]
    assert best["gain"].tolist() == pytest.approx([chance_of(5, k) - 0.5 for k in (1, 2, 4, 8)])
    assert best["coverage"].isna().all() and table.loc[table["way"] == "coverage", "coverage"].notna().all()


def test_the_figure_has_a_panel_for_each_size_with_the_curves_and_where_votes_end(sizes_study):
    study = sizes_study
    panels = success_against_samples(study).axes
    assert [panel.get_title() for panel in panels] == [at.title for at in study.answered]
    for panel, at in zip(panels, study.answered, strict=True):
        lines = {line.get_label(): line.get_xydata() for line in panel.lines}
        shown = [(point.samples, point.success.value) for point in at.curves[0].points]
        assert lines["any of them is right"].tolist() == [pytest.approx(point) for point in shown]
        ends = [
            tuple(line.get_xydata()[0]) for line in panel.lines if line.get_marker() == "_" and len(line.get_xdata())
        ]
        assert ends == [(12.0, curve.plateau.value) for curve in at.curves if curve.plateau]
    many = dataclasses.replace(study, answered=study.answered[:1] * 20, laws=study.laws[:1] * 20)
    assert sum(panel.get_visible() for panel in success_against_samples(many).axes) == 6

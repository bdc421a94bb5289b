"""Critical batches from sweeps: planted ones come back, from runs or checkpoints, and what cannot be said is not."""

import json

import numpy as np
import pandas as pd
import pytest
import tyro

from analysis.command.critical_batch import critical_batch
from analysis.command.fit import fit
from analysis.fit import FitError
from analysis.studies import critical_batches, points_table
from analysis.studies.critical_batch import Reached, _fitted

BATCHES = (2e3, 8e3, 3.2e4, 1.28e5)
CRITICAL = {2.6: 1e4, 2.4: 4e4}  # at each loss the law holds exactly
TOKENS_MIN = {2.6: 1e7, 2.4: 1e8}


def exact(batch, loss):
    return TOKENS_MIN[loss] * (1 + batch / CRITICAL[loss])


def sweep(rates=(1e-3,), seeds=1, noise=0.0, batches=BATCHES):
    """Runs of three lengths per batch: two end at the planted losses, and one at 2.9. The middle rate is the best."""
    generator, rows = np.random.default_rng(0), []
    for batch in batches:
        for loss, tokens in ((2.9, exact(batch, 2.6) / 10), *((loss, exact(batch, loss)) for loss in CRITICAL)):
            for rate in rates:
                worse = 0.01 * np.log(rate / rates[len(rates) // 2]) ** 2
                for seed in range(seeds):
                    rows.append(
                        {
                            "run": f"{batch:g}-{loss}-{rate}-{seed}",
                            "params": 1e6,
                            "tokens": tokens,
                            "batch_tokens": batch,
                            "learning_rate": rate,
                            "seed": seed,
                            "loss_nats": (loss + worse) * np.exp(noise * generator.standard_normal()),
                            "noise_scale_tokens": {2.9: 500.0, 2.6: 1e3, 2.4: 4e3}[loss] * batch**0.1,
                        }
                    )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("rates", [(1e-3,), (3e-4, 1e-3, 3e-3)])
def test_planted_batches_come_back_exactly_where_runs_end_at_the_loss(rates):
    found = critical_batches(sweep(rates), tuple(CRITICAL))
    assert [at.loss_nats for at in found.found] == list(CRITICAL)
    for at in found.found:
        assert at.cell == {"params": 1e6} and at.reason == "" and not any(one.at_edge for one in at.reached)
        assert at.critical_batch.value == pytest.approx(CRITICAL[at.loss_nats], rel=1e-6)
        assert at.tokens_min.value == pytest.approx(TOKENS_MIN[at.loss_nats], rel=1e-6)
        assert at.steps_min.value == pytest.approx(TOKENS_MIN[at.loss_nats] / CRITICAL[at.loss_nats], rel=1e-6)
        assert [one.tokens for one in at.reached] == pytest.approx([exact(b, at.loss_nats) for b in BATCHES])
    scales = [1e3 * batch**0.1 for batch in BATCHES]
    assert found.found[0].noise_scale_tokens == pytest.approx(np.median(scales))


def test_between_runs_a_loss_is_read_by_straight_lines_in_logarithms():
    middle = np.sqrt(2.6 * 2.4)
    (at,) = critical_batches(sweep(), (middle,)).found
    for one in at.reached:
        assert one.tokens == pytest.approx(np.sqrt(exact(one.batch_tokens, 2.6) * exact(one.batch_tokens, 2.4)))
        assert one.noise_scale_tokens == pytest.approx(2e3 * one.batch_tokens**0.1)
        assert one.steps == pytest.approx(one.tokens / one.batch_tokens)


def test_intervals_hold_what_is_planted_as_often_as_they_promise():
    """Five batches whose tokens scatter by 5 %: of 60 tables more than 13 miss with probability 0.002 at 90 %."""
    batches, generator, missed = np.geomspace(2e3, 6.4e4, 5), np.random.default_rng(0), [0, 0, 0]
    truth = (CRITICAL[2.6], TOKENS_MIN[2.6], TOKENS_MIN[2.6] / CRITICAL[2.6])
    for _ in range(60):
        points = [
            Reached(batch, exact(batch, 2.6) * np.exp(0.05 * generator.standard_normal()), np.nan, False)
            for batch in batches
        ]
        for i, (interval, true) in enumerate(zip(_fitted(points, 0.9), truth, strict=True)):
            missed[i] += not interval.contains(true)
    assert all(1 <= count <= 13 for count in missed), missed


def test_seeds_are_averaged():
    table = sweep(seeds=3, noise=0.002)
    means = table.groupby(["batch_tokens", "tokens"], as_index=False)["loss_nats"].mean().assign(params=1e6)
    averaged, apart = (points_table(critical_batches(t, (2.6,))) for t in (means, table))
    pd.testing.assert_series_equal(averaged["tokens"], apart["tokens"])


def test_checkpoints_of_a_run_say_the_same_as_runs_of_their_own():
    runs = sweep()
    checkpoints = runs.assign(run="batch " + runs["batch_tokens"].astype(str))
    as_runs, as_checkpoints = (points_table(critical_batches(t, (2.6,))) for t in (runs, checkpoints))
    pd.testing.assert_frame_equal(as_runs, as_checkpoints)


def test_noise_scales_that_are_missing_or_none_are_no_noise_scales():
    table = sweep()
    for column, known in (([np.nan, -1.0, 0.0, 1e3] * 3, 0), (None, 0), (["none", "7", "7", "7"] * 3, 2)):
        changed = table.drop(columns="noise_scale_tokens")
        changed = changed if column is None else changed.assign(noise_scale_tokens=column)
        (at,) = critical_batches(changed, (2.5,)).found
        assert sum(np.isfinite(one.noise_scale_tokens) for one in at.reached) == known
        assert np.isnan(at.noise_scale_tokens) == (known == 0)


def test_small_batches_alone_leave_the_critical_batch_open():
    """Where all take the same tokens there is no turn, and no fewest steps."""
    table = sweep()
    table["tokens"] = table["loss_nats"].map({2.9: 1e6, 2.6: 1e7, 2.4: 1e8}) * np.where(
        table["batch_tokens"].isin(BATCHES[::2]), 1.01, 1.0
    )
    (at,) = critical_batches(table, (2.5,)).found
    assert not np.isfinite(at.critical_batch.high) and at.critical_batch.low > BATCHES[-1]
    assert at.steps_min.low == 0 and np.isfinite(at.steps_min.high)


def test_batches_that_do_not_cross_a_loss_are_named_and_two_are_too_few():
    table = sweep()
    never = table["batch_tokens"].eq(BATCHES[0]) & table["loss_nats"].eq(2.4)
    early = table["batch_tokens"].eq(BATCHES[1]) & table["loss_nats"].gt(2.4)
    (at,) = critical_batches(table[~(never | early)], (2.5,)).found
    assert [(one.run, one.reason) for one in at.missed] == [
        ("batch of 2000 tokens at 2.5 nats", "ends at 2.6"),
        ("batch of 8000 tokens at 2.5 nats", "is at 2.4 when it is first measured"),
    ]
    assert at.critical_batch is None and at.reason == "of 4 batches 2 cross this loss, and the law needs 3"
    with pytest.raises(FitError, match=r"none is crossed by all 4 batches of cell params=1e\+06.*Fix: give losses"):
        critical_batches(table[~(table["batch_tokens"].eq(BATCHES[0]) & table["loss_nats"].lt(2.9))])
    with pytest.raises(FitError, match="losses = -1: must be positive"):
        critical_batches(table, (-1.0,))


def test_a_best_rate_at_the_end_of_those_tried_is_marked():
    table = sweep((3e-4, 1e-3, 3e-3))
    (at,) = critical_batches(table[table["learning_rate"] >= 1e-3], (2.5,)).found
    assert all(one.at_edge for one in at.reached)


def test_the_command_prints_both_scales_and_writes_a_table_that_fit_reads(tmp_path, capsys):
    sweep().to_csv(tmp_path / "sweep.csv", index=False)
    files = ["--out", f"{tmp_path}/points.csv", "--json", f"{tmp_path}/found.json"]
    tyro.cli(critical_batch, args=[f"{tmp_path}/sweep.csv", *files])
    shown = " ".join(capsys.readouterr().out.split())
    assert "Critical batches" in shown and "What each batch took" in shown and "noise scale" in shown
    found = json.loads((tmp_path / "found.json").read_text())["found"]
    losses = [one["loss_nats"] for one in found]
    assert 500 < found[0]["reached"][0]["noise_scale_tokens"] / 2e3**0.1 < 1e3
    assert losses == pytest.approx(np.geomspace(2.9, 2.4, 5)[1:-1])
    asked = ["--where", f"loss_nats={losses[1]!r}", "--law", "critical_batch", "--bootstraps", "30"]
    tyro.cli(
        fit, args=[f"{tmp_path}/points.csv", *asked, "--objective", "least_squares", "--json", f"{tmp_path}/l.json"]
    )
    values = json.loads((tmp_path / "l.json").read_text())["law"]["fit"]["values"]
    assert values["critical_batch"] == pytest.approx(found[1]["critical_batch"]["value"], rel=1e-4)

"""Runs that go on from another's checkpoint: what a cooldown costs, and that it is the run it stands for."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_tokens import tiny_run
from test_together import as_many_devices_as_the_mesh_has, losses, train_in  # noqa: F401  a fixture

from research.config import CheckpointConfig, ConfigError, LoggingConfig, MeshConfig, StartConfig, override, run_name
from research.plan import Branches, Experiment
from research.runs import Status
from research.training import metrics

TRUNK = override(
    replace(
        tiny_run(steps=30),
        mesh=MeshConfig(data=1),
        logging=LoggingConfig(every=5),
        checkpoint=CheckpointConfig(every=100, also_at=(8, 16)),
    ),
    ["optimizer.schedule=wsd", "optimizer.warmup_fraction=0.1", "optimizer.decay_fraction=0.2"],
)


def branch(end, first, **start):
    """Ends after `end` steps, the last fifth of them a cooldown; warm-up is the trunk's 3 steps."""
    config = override(TRUNK, [f"training.steps={end}", f"optimizer.warmup_fraction={3 / end}"])
    return replace(config, start=StartConfig(**{"run": run_name(TRUNK), "step": first, **start}))


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert train_in(folder, [TRUNK])[1] == [Status.DONE]
    return folder


@pytest.mark.parametrize(("end", "first"), [(10, 8), (20, 16)])
def test_a_cooldown_is_the_run_from_the_start_to_the_bit(runs_dir, tmp_path, end, first):
    cooled = branch(end, first)
    (folder,), statuses = train_in(runs_dir, [cooled])
    (alone,), _ = train_in(tmp_path, [replace(cooled, start=None)])
    assert statuses == [Status.DONE] and cooled.own_steps == end - first
    assert losses(folder) == losses(alone)[first:]
    assert folder.result()["loss_nats"] == alone.result()["loss_nats"]
    assert folder.name != alone.name
    session, *_ = metrics.read(folder.metrics_path)
    assert (session["kind"], session["step"]) == ("session", first)


@pytest.mark.slow
def test_branches_of_one_trunk_train_together_and_resume(runs_dir, tmp_path):
    """Their cooldowns differ in the rate's end alone."""
    ends = [
        replace(b, optimizer=replace(b.optimizer, final_fraction=end)) for end in (0.0, 0.5) for b in [branch(20, 16)]
    ]
    folders, statuses = train_in(runs_dir, ends, stop_at=18)
    assert statuses in ([Status.PARTIAL] * 2, [Status.DONE] * 2)
    folders, statuses = train_in(runs_dir, ends)
    assert statuses == [Status.DONE] * 2
    for config, folder in zip(ends, folders, strict=True):
        (alone,), _ = train_in(tmp_path, [replace(config, start=None)])
        np.testing.assert_allclose(losses(folder), losses(alone)[16:], rtol=2e-5)


@pytest.mark.parametrize(
    ("start", "change", "words"),
    [
        ({"run": "nowhere"}, "training.seed=0", r"start.run = 'nowhere': is no run in"),
        ({"step": 7}, "training.seed=0", r"start.step = 7: is no checkpoint of .*which has \[8, 16, 30\].*also_at=7"),
        ({}, "model.width=32", r"is no beginning of this run: they differ in model.width.*name a run of this model"),
        ({}, "training.seed=1", r"is no beginning of this run: they differ in training.seed"),
        ({}, "optimizer.name=lion", r"is no beginning of this run: they differ in optimizer"),
    ],
)
def test_what_is_no_beginning_is_refused_in_words(runs_dir, start, change, words):
    with pytest.raises(ConfigError, match=words):
        train_in(runs_dir, [override(branch(20, 16, **start), [change])])


def test_a_start_beyond_the_end_is_refused():
    with pytest.raises(ConfigError, match=r"start.step = 16: must be less than training.steps = 16"):
        branch(16, 16)


PLAN = Branches("branches", "?", TRUNK, lengths=(10, 20, 30), sizes=((16, 2), (32, 2)), seeds=(0, 1))


def test_a_plan_of_branches_is_trunks_and_then_their_cooldowns():
    trunks = PLAN.runs()
    assert isinstance(PLAN, Experiment) and len(trunks) == 4
    assert {trunk.checkpoint.also_at for trunk in trunks} == {(8, 16)} and not any(trunk.start for trunk in trunks)
    assert PLAN.following({}) == ()
    branches = PLAN.following({trunks[0]: 2.0, trunks[1]: float("inf")})  # one is not done, and one diverged
    assert [(run.start.run, run.start.step, run.training.steps) for run in branches] == [
        (run_name(trunks[0]), 8, 10),
        (run_name(trunks[0]), 16, 20),
    ]
    assert {run.optimizer.numbers(run.training.steps)["warmup_steps"] for run in (*trunks, *branches)} == {3}
    assert sum(run.own_steps for run in branches) == 6  # and not 30
    assert PLAN.following(dict.fromkeys((*trunks[:1], *branches), 2.0)) == ()


@pytest.mark.slow
def test_the_runs_of_a_plan_of_branches_train(tmp_path):
    plan = replace(PLAN, sizes=(), seeds=(0,))
    (trunk,) = plan.runs()
    (folder,), _ = train_in(tmp_path, [trunk])
    branches = plan.following({trunk: folder.result()["loss_nats"]})
    for branch in branches:
        (cooled,), statuses = train_in(tmp_path, [branch])
        assert statuses == [Status.DONE] and len(losses(cooled)) == branch.own_steps


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lengths": (10,)}, r"lengths = \(10,\): must be two or more numbers of steps that rise"),
        ({"lengths": (2, 30)}, r"lengths = 2: would leave the trunk after 1 steps, before its warm-up of 3 ends"),
        ({"base": override(TRUNK, ["optimizer.schedule=cosine"])}, r"base.optimizer.schedule = 'cosine': must be wsd"),
        ({"seeds": ()}, r"seeds = \(\): must not be empty"),
    ],
)
def test_a_bad_plan_of_branches_is_refused_in_words(change, words):
    with pytest.raises(ConfigError, match=words):
        replace(PLAN, **change)

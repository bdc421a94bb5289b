"""Runs of one program that train together: the numbers each has alone, and its own log, life and end."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import CheckpointConfig, ConfigError, LoggingConfig, MeshConfig, override, program_of
from research.evaluation.held_out import held_out_measures
from research.execution.jobs import together
from research.runs import PHASES, Status, open_run
from research.sharding import make_mesh
from research.training import loop, metrics
from research.training.checkpoint import Checkpoints
from research.training.loop import train
from research.training.objective import language_modelling
from research.training.session import Run
from research.training.step import make_program

BASE = replace(
    tiny_run(), mesh=MeshConfig(data=1), logging=LoggingConfig(every=5), checkpoint=CheckpointConfig(every=8)
)
THREE = [
    override(BASE, [f"optimizer.learning_rate={rate}", f"optimizer.weight_decay={decay}", f"training.seed={seed}"])
    for rate, decay, seed in ((3e-3, 0.1, 0), (1e-2, 0.1, 1), (3e-3, 0.0, 2))
]
# Adam's steps are of size 1 whatever rounding does to a gradient; over 20 of them sums in another order, of which a
# loss is off by 1e-7, become this much.
SAME = {"rtol": 2e-5}


def train_in(runs_dir, configs, stop_at=None):
    runs = [Run(config, open_run(runs_dir, config), synthetic_examples(config)) for config in configs]
    seen = [0]
    statuses = train(
        runs,
        objective=language_modelling,
        evaluate=held_out_measures,
        on_progress=lambda folder, step, loss: seen.append(step),
        should_stop=lambda: stop_at is not None and seen[-1] >= stop_at,
    )
    return [run.folder for run in runs], statuses


@pytest.fixture(scope="module", autouse=True)
def as_many_devices_as_the_mesh_has():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[: config.data * config.fsdp]))
        yield


def losses(folder):
    return [line["loss_nats"] for line in metrics.read(folder.metrics_path) if line["kind"] == "train"]


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    return [train_in(tmp_path_factory.mktemp("apart"), [config])[0][0] for config in THREE]


def test_runs_that_train_together_are_the_runs_apart(apart, tmp_path):
    folders, statuses = train_in(tmp_path, THREE)
    assert statuses == [Status.DONE] * 3 == [folder.status() for folder in folders]
    for alone, folder in zip(apart, folders, strict=True):
        assert alone.name == folder.name
        np.testing.assert_allclose(losses(folder), losses(alone), **SAME)
        one, other = alone.result(), folder.result()
        assert (one.pop("trained_together"), other.pop("trained_together")) == (1, 3)
        assert one.keys() == other.keys()
        for measured in ("loss_nats", "loss_nats_prose", "bits_per_byte_code", "train_loss_nats"):
            assert other[measured] == pytest.approx(one[measured], rel=2e-5)
        assert other["wall_seconds"] == pytest.approx(sum(other[f"{phase}_seconds"] for phase in PHASES))
    assert len({losses(folder)[-1] for folder in folders}) == 3  # they do differ
    lines = [json.loads(line) for line in folders[1].metrics_path.read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if line["kind"] == "train"]
    assert max(rates) == pytest.approx(1e-2)


@pytest.mark.slow
def test_stopped_together_they_go_on_together_or_apart(apart, tmp_path):
    """One goes on alone from the step where all were stopped, and the others without it."""
    folders, statuses = train_in(tmp_path, THREE, stop_at=10)
    assert statuses == [Status.PARTIAL] * 3 and {folder.checkpoint_step() for folder in folders} == {10}
    train_in(tmp_path, THREE[:1])
    train_in(tmp_path, THREE[1:])
    for alone, folder in zip(apart, folders, strict=True):
        np.testing.assert_allclose(losses(folder), losses(alone), **SAME)
        sessions = [line for line in metrics.read(folder.metrics_path) if line["kind"] == "session"]
        assert [line["step"] for line in sessions] == [0, 10]
        assert folder.result()["loss_nats"] == pytest.approx(alone.result()["loss_nats"], rel=2e-5)


@pytest.mark.slow
def test_what_was_done_together_is_kept_to_the_bit(tmp_path):
    """Stopped and resumed together, the arrays are those of the run that was not."""

    def state(folder, config):
        mesh = make_mesh(config.mesh, jax.devices()[:1])
        with jax.set_mesh(mesh), Checkpoints(folder.checkpoints_path, config.checkpoint) as checkpoints:
            abstract = make_program(config, mesh, language_modelling(config)).abstract_state
            return jax.device_get(checkpoints.restore(abstract)[0])

    whole, _ = train_in(tmp_path / "whole", THREE)
    train_in(tmp_path / "halves", THREE, stop_at=10)
    halves, _ = train_in(tmp_path / "halves", THREE)
    for config, one, other in zip(THREE, whole, halves, strict=True):
        jax.tree.map(np.testing.assert_array_equal, state(one, config), state(other, config))
        assert losses(one) == losses(other)


def test_runs_from_different_steps_are_trained_to_the_end(apart, tmp_path):
    train_in(tmp_path, THREE[:2], stop_at=5)
    folders, statuses = train_in(tmp_path, THREE)
    assert statuses == [Status.DONE] * 3
    for alone, folder in zip(apart, folders, strict=True):
        np.testing.assert_allclose(losses(folder), losses(alone), **SAME)


def test_a_loss_that_is_not_finite_ends_its_run_alone(apart, tmp_path):
    wild = override(THREE[1], ["optimizer.learning_rate=1e30"])
    folders, statuses = train_in(tmp_path, [THREE[0], wild, THREE[2]])
    assert statuses == [Status.DONE, Status.FAILED, Status.DONE]
    assert folders[1].status() == Status.FAILED and "loss_nats" in folders[1].result()["failure_reason"]
    for alone, folder in ((apart[0], folders[0]), (apart[2], folders[2])):
        np.testing.assert_allclose(losses(folder), losses(alone), **SAME)


def test_runs_of_other_programs_are_refused(tmp_path):
    for change in ("training.steps=21", "optimizer.clip_norm=none", "model.depth=1", "optimizer.schedule=wsd"):
        other = override(THREE[1], [change])
        assert program_of(other) != program_of(THREE[0])
        with pytest.raises(ConfigError, match=r"runs = .*train together only if.*Fix: train them apart"):
            train_in(tmp_path, [THREE[0], other])


@pytest.mark.slow
def test_several_devices_train_one_run_after_the_other(apart, tmp_path):
    folders, statuses = train_in(tmp_path, [replace(config, mesh=MeshConfig(data=2, fsdp=2)) for config in THREE])
    assert statuses == [Status.DONE] * 3
    for alone, folder in zip(apart, folders, strict=True):
        np.testing.assert_allclose(losses(folder), losses(alone), **SAME)
        assert folder.result()["trained_together"] == 1


@pytest.mark.parametrize(
    ("most", "workers", "sizes"),
    [(1, 2, [1] * 7), (8, 2, [3, 3, 1]), (4, 1, [3, 3, 1]), (8, 1, [6, 1]), (8, 8, [1] * 7)],
)
def test_jobs_are_shared_out_evenly_and_keep_the_order(most, workers, sizes):
    """Six seeds of one size and one run of another."""
    configs = [replace(BASE, training=replace(BASE.training, seed=seed)) for seed in range(6)]
    configs.insert(2, override(BASE, ["model.depth=1"]))
    groups = together(configs, most, workers)
    assert sorted(map(len, groups), reverse=True) == sizes
    assert sorted(config.training.seed for group in groups for config in group) == [0, 0, 1, 2, 3, 4, 5]
    assert all(len({program_of(config) for config in group}) == 1 for group in groups)
    assert [configs.index(group[0]) for group in groups] == sorted(configs.index(group[0]) for group in groups)
    assert max(map(len, groups)) <= most

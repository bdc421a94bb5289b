"""A run from start to result: what it leaves behind, how it resumes, how it fails."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import CheckpointConfig, ConfigError, LoggingConfig, MeshConfig, RunConfig, to_json
from research.evaluation.held_out import held_out_measures
from research.plan import executed_cost
from research.runs import PHASES, RunFolder, Status, folder_of, open_run
from research.sharding import batch_sharding, make_mesh
from research.training import metrics
from research.training.checkpoint import (
    Checkpoints,
    CorruptCheckpointError,
    _checksums,
    reads_end_before_their_loop,
)
from research.training.loop import train
from research.training.objective import language_modelling
from research.training.session import Run
from research.training.step import gradients, make_program


def _train(config: RunConfig, runs_dir, stop_at=None, objective=language_modelling):
    """Train in `runs_dir`, asking to stop once `stop_at` steps have been reported."""
    folder = open_run(runs_dir, config)
    seen = [0]
    (status,) = train(
        [Run(config, folder, synthetic_examples(config))],
        objective=objective,
        evaluate=held_out_measures,
        on_progress=lambda _, step, loss: seen.append(step),
        should_stop=lambda: stop_at is not None and seen[-1] >= stop_at,
    )
    return folder, status


def _params(folder, config):
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh), Checkpoints(folder.checkpoints_path, config.checkpoint) as checkpoints:
        state, _ = checkpoints.restore(make_program(config, mesh, language_modelling(config)).abstract_state)
    return jax.device_get(state)


@pytest.fixture(scope="module")
def config():
    return replace(tiny_run(), logging=LoggingConfig(every=1), checkpoint=CheckpointConfig(every=10))


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    return _train(config, tmp_path_factory.mktemp("straight"))[0]


def test_a_run_leaves_a_complete_result(straight, config):
    assert straight.status() == Status.DONE
    result = straight.result()
    lines = metrics.read(straight.metrics_path)
    assert result["train_loss_nats"] < lines[1]["loss_nats"] - 0.3  # of the last step, and the first
    assert result["loss_nats"] == pytest.approx(0.7 * result["loss_nats_prose"] + 0.3 * result["loss_nats_code"])
    assert result["bits_per_byte_prose"] == pytest.approx(result["loss_nats_prose"] / np.log(2))  # one byte a token
    assert result["wall_seconds"] == pytest.approx(sum(result[f"{phase}_seconds"] for phase in PHASES))
    assert result["algorithms"] == "attention dense"
    assert result["executed_flops"] == executed_cost(config, "cpu").executed_flops > result["elementwise_flops"]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, config.training.steps + 1))


def test_stopped_and_resumed_is_bit_identical(straight, config, tmp_path):
    folder, status = _train(config, tmp_path, stop_at=7)
    assert status == Status.PARTIAL == folder.status()
    folder, status = _train(config, tmp_path)
    assert status == Status.DONE
    jax.tree.map(np.testing.assert_array_equal, _params(folder, config), _params(straight, config))
    assert _training_lines(folder) == _training_lines(straight)
    assert folder.result()["loss_nats"] == straight.result()["loss_nats"]


def test_moments_and_sums_in_bfloat16_come_back_from_a_checkpoint(config, tmp_path):
    config = replace(
        config,
        optimizer=replace(config.optimizer, first_moment_dtype="bfloat16"),
        training=replace(config.training, batch_size=16, microbatches=2, accumulation_dtype="bfloat16"),
    )
    whole, _ = _train(config, tmp_path / "whole")
    _train(config, tmp_path / "parts", stop_at=7)
    folder, status = _train(config, tmp_path / "parts")
    assert status == Status.DONE
    jax.tree.map(np.testing.assert_array_equal, _params(folder, config), _params(whole, config))


def _training_lines(folder):
    return [line for line in metrics.read(folder.metrics_path) if line["kind"] == "train"]


KILLED = """
import sys
sys.path[:0] = [{tests!r}]
from synthetic_tokens import synthetic_examples
from research.config import RunConfig, from_json
from research.runs import open_run
from research.evaluation.held_out import held_out_measures
from research.training.loop import train
from research.training.session import Run
from research.training.objective import language_modelling
config = from_json(RunConfig, open({config!r}).read())
folder = open_run({runs!r}, config)
train(
    [Run(config, folder, synthetic_examples(config))], objective=language_modelling, evaluate=held_out_measures,
    on_progress=lambda folder, step, loss: print(step, flush=True), should_stop=lambda: False,
)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_a_random_step_and_resumed_is_bit_identical(seed, tmp_path):
    """SIGKILL while checkpoints are being written behind the steps; two kills, then to the end."""
    config = replace(tiny_run(steps=60), logging=LoggingConfig(every=1), checkpoint=CheckpointConfig(every=5))
    (tmp_path / "config.json").write_text(to_json(config))
    script = KILLED.format(
        tests=str(Path(__file__).parent), config=str(tmp_path / "config.json"), runs=str(tmp_path / "killed")
    )
    rng = np.random.default_rng(seed)
    for low, high in ((8, 25), (30, 50)):
        kill_at = int(rng.integers(low, high))
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for line in process.stdout:
            if int(line) >= kill_at:
                time.sleep(float(rng.uniform(0, 0.05)))
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
    folder, status = _train(config, tmp_path / "killed")
    assert status == Status.DONE
    straight, _ = _train(config, tmp_path / "straight")
    jax.tree.map(np.testing.assert_array_equal, _params(folder, config), _params(straight, config))
    assert _training_lines(folder) == _training_lines(straight)
    assert sum(line["kind"] == "session" for line in metrics.read(folder.metrics_path)) >= 2


def test_large_batch_equals_its_microbatches():
    config = tiny_run()
    mesh = make_mesh(replace(config.mesh, data=1), jax.devices()[:1])
    objective = language_modelling(config)
    params = make_program(config, mesh, objective).init().params
    keys = jax.random.split(jax.random.key(0), 3)
    batch = {
        "inputs": jax.random.randint(keys[0], (8, 16), 0, 264),
        "targets": jax.random.randint(keys[1], (8, 16), 0, 264),
        "weights": jax.random.bernoulli(keys[2], 0.4, (8, 16)).astype(np.float32),  # unequal weight per microbatch
    }
    compiled = jax.jit(gradients, static_argnums=(0, 1))
    four = replace(config.training, microbatches=4)
    whole, terms, weight = compiled(objective, config.training, params, batch)
    split, split_terms, _ = compiled(objective, four, params, batch)
    np.testing.assert_allclose(split_terms.sums.losses, terms.sums.losses, rtol=1e-6)
    assert weight == batch["weights"].sum()
    # Gradients are means of 51 tokens: sums in another order agree to float32 rounding of the largest term.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), split, whole)
    rough, _, _ = compiled(objective, replace(four, accumulation_dtype="bfloat16"), params, batch)
    for exact, found in zip(jax.tree.leaves(whole), jax.tree.leaves(rough)):
        # Three sums in bfloat16, each off by up to 2^-9 of the largest partial sum.
        error = np.abs(found - exact).max() / np.abs(exact).max()
        assert found.dtype == np.float32 and 1e-6 < error < 4 * 2.0**-8


def test_a_loss_that_is_not_finite_fails_the_run_with_its_step(tmp_path):
    config = tiny_run()
    config = replace(config, optimizer=replace(config.optimizer, learning_rate=1e30, clip_norm=None))
    folder, status = _train(config, tmp_path)
    assert status == Status.FAILED == folder.status()
    failure = json.loads(folder.failure_path.read_text())
    lines = _training_lines(folder)
    assert failure["failure_step"] == next(line["step"] for line in lines if line["loss_nats"] is None)
    assert "loss_nats" in failure["failure_reason"]


def test_parameters_that_the_last_update_spoiled_fail_the_run(tmp_path):
    """Each training loss is of the parameters before the step's update: only the evaluation sees the last ones."""
    config = tiny_run(steps=1)

    def spoiled(config):
        return language_modelling(config)._replace(
            after_update=lambda params, sums: jax.tree.map(lambda array: array * np.nan, params)
        )

    folder, status = _train(config, tmp_path, objective=spoiled)
    assert status == Status.FAILED == folder.status()
    assert folder.result()["failure_reason"] == "held-out loss_nats = nan at step 1"
    (evaluation,) = [line for line in metrics.read(folder.metrics_path) if line["kind"] == "evaluation"]
    assert evaluation["loss_nats"] is None and evaluation["exact_match"] == evaluation["token_accuracy"] == 0.0


def test_lines_that_are_no_json_are_left_out_by_name(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "train", "step": 1}\n{"kind": "tr\xff\n{"kind": "train", "step": 2}\n{"kind": "tra')
    assert [line["step"] for line in metrics.read(path)] == [1, 2]
    assert f"{path}: line 2 is damaged and left out" in caplog.text


def test_a_smaller_vocabulary_than_the_text_has_is_refused(tmp_path):
    config = tiny_run()
    config = replace(config, model=replace(config.model, vocab_size=260), data=replace(config.data, vocab_size=260))
    with pytest.raises(ConfigError, match=r"model.vocab_size = 260.*at least the 264 ids"):
        _train(config, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bfloat16"])
def test_any_flipped_bit_changes_the_checksum(dtype):
    array = np.asarray(jax.random.normal(jax.random.key(0), (3, 5)).astype(dtype))
    original = _checksums({"a": jnp.asarray(array)})
    for index in range(array.nbytes):
        for bit in range(8):
            flipped = bytearray(array.tobytes())
            flipped[index] ^= 1 << bit
            changed = np.frombuffer(bytes(flipped), array.dtype).reshape(array.shape)
            assert _checksums({"a": jnp.asarray(changed)}) != original


def test_checksums_do_not_depend_on_the_mesh():
    array = jax.random.normal(jax.random.key(0), (8, 6))
    split = jax.device_put(array, batch_sharding(make_mesh(MeshConfig(data=4, tensor=2))))
    assert _checksums({"a": split}) == _checksums({"a": array})


def _change_checksum(checkpoint):
    """A flipped bit on disk may be one that orbax never reads, so the record of what was saved is changed instead."""
    record = checkpoint / "record" / "metadata"
    saved = json.loads(record.read_text())
    name = next(name for name in saved["checksums"] if "query" in name)
    saved["checksums"][name] ^= 1
    record.write_text(json.dumps(saved))


def _truncate(checkpoint):
    """Every large file: of several with the same arrays orbax reads one."""
    large = [path for path in (checkpoint / "state").rglob("*") if path.is_file() and path.stat().st_size > 1000]
    assert large
    for path in large:
        path.write_bytes(path.read_bytes()[:100])


DAMAGE = {
    "changed": (_change_checksum, "query.*the file changed on disk"),
    "truncated": (_truncate, "cannot be read"),
    "no index": (lambda checkpoint: (checkpoint / "state" / "manifest.ocdbt").unlink(), "cannot be read"),
    "no record": (lambda checkpoint: shutil.rmtree(checkpoint / "record"), "cannot be read: .*record"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage, straight, config, tmp_path, caplog):
    """The run ends as if nothing had happened: the step that was damaged is trained and saved again."""
    folder = open_run(tmp_path, config)
    shutil.copytree(straight.path, folder.path, dirs_exist_ok=True)
    folder.result_path.unlink()
    spoil, words = DAMAGE[damage]
    spoil(folder.checkpoints_path / "20")
    assert _train(config, tmp_path)[1] == Status.DONE
    assert re.search(f"/20: .*{words}.*Training goes on from step 10", caplog.text)
    jax.tree.map(np.testing.assert_array_equal, _params(folder, config), _params(straight, config))
    assert _training_lines(folder) == _training_lines(straight)
    assert [path.name[:3] for path in (folder.path / "damaged-checkpoints").iterdir()] == ["20-"]


def test_a_failed_read_waits_for_the_reads_beside_it():
    """As orbax reads: tasks of one loop, closed at the first that fails, each ended by a call from another thread."""
    ended = []

    async def slow():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        threading.Timer(0.05, loop.call_soon_threadsafe, (done.set_result, "read")).start()
        ended.append(await done)

    async def fast():
        raise FileNotFoundError("manifest")

    async def both():
        await asyncio.gather(slow(), fast())

    with reads_end_before_their_loop():
        loop = asyncio.new_event_loop()
        with pytest.raises(FileNotFoundError):
            loop.run_until_complete(both())
        loop.close()
    assert ended == ["read"]


def test_without_a_readable_checkpoint_the_error_says_so(straight, config, tmp_path):
    shutil.copytree(straight.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    for checkpoint in folder.checkpoints_path.iterdir():
        _change_checksum(checkpoint)
    with pytest.raises(
        CorruptCheckpointError, match=r"/20: array.*query.*/10: array.*No older checkpoint.*Fix: delete"
    ):
        _params(folder, config)


def test_checkpoints_kept_are_the_ones_asked_for(tmp_path):
    config = replace(tiny_run(steps=13), checkpoint=CheckpointConfig(every=2, keep_last=2, keep_every=4))
    folder, _ = _train(config, tmp_path)
    kept = sorted(int(path.name) for path in folder.checkpoints_path.iterdir() if path.name.isdigit())
    assert kept == [4, 8, 12, 13]


def test_metrics_that_were_lost_beside_the_last_checkpoint_are_a_missing_column(straight, config, tmp_path):
    """As after a power cut: the checkpoint is on disk, and of the file nothing."""
    shutil.copytree(straight.path.parent.parent, tmp_path / "runs")
    folder = folder_of(tmp_path / "runs", config)
    folder.metrics_path.write_bytes(b"")
    folder.result_path.unlink()
    folder, status = _train(config, tmp_path / "runs")
    assert status == Status.DONE and "train_loss_nats" not in folder.result()
    assert folder.result()["loss_nats"] == straight.result()["loss_nats"]


def test_tensorboard_mirrors_the_metrics(tmp_path):
    config = replace(tiny_run(steps=5), logging=LoggingConfig(every=2, tensorboard=True))
    folder, _ = _train(config, tmp_path)
    events = list(folder.tensorboard_path.glob("events.out.tfevents.*"))
    assert len(events) == 1 and events[0].stat().st_size > 5 * 4 * 20  # five steps of four scalars


def test_training_imports_neither_tensorflow_nor_seqio():
    code = (
        "import sys, research.training.loop, research.execution.trainer; print([m for m in ('tensorflow', 'seqio', "
        "'tensorflow_datasets') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )

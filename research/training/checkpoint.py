"""Saving and restoring a run's state with orbax: asynchronous, keep-last and keep-every, every array checked.

Orbax restores flipped bits without a word, so each checkpoint carries a checksum of every array; the checksums are
integer arithmetic on the device, equal on every mesh, and never move the arrays to a host.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from research.config import CheckpointConfig


class CorruptCheckpointError(RuntimeError):
    """A checkpoint cannot be read, or a restored array is not the array that was saved; `step` is its step."""

    def __init__(self, message: str, step: int | None = None):
        super().__init__(message)
        self.step = step


class Checkpoints:
    """The checkpoints of one run's folder. A context manager: leaving it waits for saves under way."""

    def __init__(self, path: Path, config: CheckpointConfig):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax logs each of its steps as information
        self._manager = ocp.CheckpointManager(
            path.absolute(),
            options=ocp.CheckpointManagerOptions(preservation_policy=_kept(config), enable_async_checkpointing=True),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def latest(self) -> int | None:
        """Steps done in the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, notes: Mapping[str, float]) -> None:
        """Start saving `state` (a pytree of arrays) and `notes` (JSON numbers) as `step`; returns before it is on disk.

        A step that is saved already is left as it is. What went wrong with an earlier save, such as a full disk, is
        raised here or by `wait`.
        """
        if self._manager.latest_step() == step:
            return
        self._manager.check_for_errors()
        record = {"notes": dict(notes), "checksums": _checksums(state)}
        self._manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        )

    def wait(self) -> None:
        """Return when every save under way is on disk; raises what went wrong with one."""
        self._manager.wait_until_finished()

    def restore_step(self, step: int, abstract_state: Any) -> Any:
        """The state after `step` steps, as `restore` gives it. Raises CorruptCheckpointError if it cannot be read."""
        return self._read(step, abstract_state)[0]

    def steps(self) -> list[int]:
        """Steps done in each complete checkpoint."""
        return sorted(self._manager.all_steps())

    def restore(self, abstract_state: Any) -> tuple[Any, dict[str, float]]:
        """The newest readable checkpoint in the shapes, dtypes and shardings of `abstract_state`, and its notes.

        One that is damaged (a file missing, cut short or changed) is passed over with a warning in the log and moved to
        `damaged-checkpoints` beside the folder, so that its step can be saved again. Raises CorruptCheckpointError if
        no checkpoint is left.
        """
        damaged: list[CorruptCheckpointError] = []
        for step in reversed(self.steps()):
            try:
                restored = self._read(step, abstract_state)
            except CorruptCheckpointError as error:
                damaged.append(error)
                continue
            for error in damaged:
                logging.getLogger(__name__).warning("%s Training goes on from step %d.", error, step)
                self._set_aside(error.step)
            return restored
        raise CorruptCheckpointError(
            f"{' '.join(map(str, damaged))} No older checkpoint is left. Fix: delete {self._manager.directory} to "
            "start the run anew."
        )

    def _read(self, step: int, abstract_state: Any) -> tuple[Any, dict[str, float]]:
        """Raises CorruptCheckpointError, with `step`, for whatever the files of that step are not."""
        folder = f"{self._manager.directory}/{step}"
        args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state), record=ocp.args.JsonRestore())
        try:
            with reads_end_before_their_loop():
                restored = self._manager.restore(step, args=args)
            expected, notes = restored.record["checksums"], restored.record["notes"]
        except (jax.errors.JaxRuntimeError, MemoryError):  # no fault of the files
            raise
        except Exception as error:  # orbax raises a bare Exception for arrays that are cut short, and six other kinds
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                raise  # the machine's fault: the files may be whole
            raise CorruptCheckpointError(f"{folder}: cannot be read: {error}".splitlines()[0], step) from error
        for name, found in _checksums(restored.state).items():
            if expected[name] != found:
                raise CorruptCheckpointError(
                    f"{folder}: array {name} has checksum {found}, not {expected[name]}; the file changed on disk.",
                    step,
                )
        return restored.state, notes

    def _set_aside(self, step: int) -> None:
        folder = Path(self._manager.directory)
        aside = folder.with_name("damaged-checkpoints")
        aside.mkdir(exist_ok=True)
        (folder / str(step)).rename(aside / f"{step}-{time.time_ns()}")
        self._manager.reload()


def _kept(config: CheckpointConfig) -> ocp.checkpoint_managers.PreservationPolicy:
    policies = ocp.checkpoint_managers
    kept = [policies.LatestN(config.keep_last), policies.CustomSteps(config.also_at)]
    if config.keep_every is not None:
        kept.append(policies.EveryNSteps(config.keep_every))
    return policies.AnyPreservationPolicy(kept)


@contextmanager
def reads_end_before_their_loop() -> Iterator[None]:
    """Event loops made inside wait for all their tasks before they close.

    Orbax reads a checkpoint's arrays as tasks of one loop and closes it at the first that fails. The others are still
    being read then; each would call the closed loop and print "Event loop is closed" into the run's output.
    """

    class WaitingLoop(asyncio.SelectorEventLoop):
        def close(self) -> None:
            if not self.is_closed() and (tasks := asyncio.all_tasks(self)):
                self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            super().close()

    class Policy(asyncio.DefaultEventLoopPolicy):
        _loop_factory = WaitingLoop

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(before)


def _checksums(state: Any) -> dict[str, int]:
    """Checksum of every array, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    sums = jax.device_get([_checksum(leaf) for _, leaf in leaves])
    return {jax.tree_util.keystr(path): int(value) for (path, _), value in zip(leaves, sums, strict=True)}


@jax.jit
def _checksum(array: jax.Array) -> jax.Array:
    """Sum over elements of bits * (2 * index + 1), modulo 2^32: changes with any flipped bit, whatever the sharding.

    The factors are odd, so a single flip, which adds +-2^k times a factor, cannot vanish modulo 2^32.
    """
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    index = jnp.zeros(array.shape, jnp.uint32)
    for axis, stride in enumerate(_strides(array.shape)):
        index += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)


def _strides(shape: tuple[int, ...]) -> list[int]:
    """Elements between neighbours along each axis, modulo 2^32, row-major."""
    return [int(np.prod(shape[axis + 1 :], dtype=object)) % 2**32 for axis in range(len(shape))]

"""Where a run starts that fine-tunes another: the other's parameters, of the same model but for heads that are new."""

from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh

from research.config import (
    HeadsConfig,
    ModelConfig,
    RunConfig,
    check,
    differences,
    fingerprint,
    from_json,
    identity,
)
from research.data.token_file import tokenizer_recipe
from research.runs import RunFolder
from research.training.checkpoint import Checkpoints
from research.training.step import abstract_state


def parameters_of_parent(config: RunConfig, folder: RunFolder, mesh: Mesh) -> dict[str, Any]:
    """The parameters after the parent's last step, or after `parent.step` of them, placed on this run's mesh.

    They are those that the parent is measured by (of schedule-free optimizers, the averaged ones). Raises ConfigError
    if there is no such run or no such checkpoint, or if it is a run of another config, of another model or of another
    tokenizer; CorruptCheckpointError if its files are damaged.
    """
    parent = config.parent
    origin = RunFolder(folder.path.parent / parent.run)  # which of an absolute path is that path
    check(
        origin.config_path.exists(),
        "parent.run",
        parent.run,
        f"is no run in {folder.path.parent}, nor the folder of one",
        "train it first, or name another",
    )
    other = from_json(RunConfig, origin.config_path.read_text())
    _check_same(config, other)
    step = other.training.steps if parent.step is None else parent.step
    with Checkpoints(origin.checkpoints_path, other.checkpoint) as checkpoints:
        saved = checkpoints.steps()
        check(
            step in saved,
            "parent.step",
            step,
            f"is no checkpoint of {parent.run}, which has {saved}",
            "train that run to its end, or name one of these",
        )
        return measured_parameters(other, checkpoints, step, mesh)


def measured_parameters(config: RunConfig, checkpoints: Checkpoints, step: int, mesh: Mesh) -> Any:
    """The parameters that a run is measured by after `step` steps, which are saved, placed on the mesh."""
    state = checkpoints.restore_step(step, abstract_state(config, mesh))
    return jax.jit(lambda state: config.optimizer.evaluated(state.moments, state.params))(state)


def _check_same(config: RunConfig, other: RunConfig) -> None:
    """Raise ConfigError unless `other` is the parent that is meant, its parameters fit, and ids mean the same."""
    parent = config.parent
    check(
        fingerprint(other) == parent.fingerprint,
        "parent.fingerprint",
        parent.fingerprint,
        f"is not that of {parent.run}, which is {fingerprint(other)}",
        "name the run that is meant",
    )
    apart = [field for field, *_ in differences(*(identity(_without_new_heads(c, other)) for c in (config, other)))]
    check(
        not apart,
        "parent.run",
        parent.run,
        f"is of another model: they differ in {', '.join(f'model.{field}' for field in apart)}",
        "use the parent's model, to which heads alone may be added",
    )
    is_task = config.task is not None or other.task is not None
    check(
        is_task or tokenizer_recipe(config.data) == tokenizer_recipe(other.data),
        "parent.run",
        parent.run,
        "was trained on ids of another tokenizer",
        "use the parent's `data`, or its tokenizer, data.vocab_size and data.tokenizer_sources",
    )


def _without_new_heads(config: RunConfig, parent: RunConfig) -> ModelConfig:
    """The run's model with none of the heads that the parent lacks."""
    own, there = config.model.heads, parent.model.heads
    kept = HeadsConfig(scalar=own.scalar and there.scalar, classes=None if there.classes is None else own.classes)
    return replace(config.model, heads=kept)

"""Where a run starts that goes on from another: a checkpoint of that one, which must be a beginning of this one."""

from dataclasses import replace
from typing import Any

from research.config import EvaluationConfig, RunConfig, check, differences, from_json, identity, program_of
from research.runs import RunFolder
from research.training.checkpoint import Checkpoints


def state_of_another(config: RunConfig, folder: RunFolder, abstract_state: Any) -> Any:
    """The state after `start.step` steps of `start.run`, whose folder lies beside this one's.

    Raises ConfigError if there is no such run or no checkpoint of that step, or if it is a run of another model, of
    other batches or of another optimizer; CorruptCheckpointError if its files are damaged.
    """
    start = config.start
    origin = RunFolder(folder.path.parent / start.run)
    check(
        origin.config_path.exists(),
        "start.run",
        start.run,
        f"is no run in {folder.path.parent}",
        "train it first, or name another",
    )
    other = from_json(RunConfig, origin.config_path.read_text())
    apart = differences(_beginning(other), _beginning(config))
    check(
        not apart,
        "start.run",
        start.run,
        f"is no beginning of this run: they differ in {', '.join(field for field, *_ in apart)}",
        "name a run of this model, optimizer, data and seed",
    )
    with Checkpoints(origin.checkpoints_path, other.checkpoint) as checkpoints:
        saved = checkpoints.steps()
        check(
            start.step in saved,
            "start.step",
            start.step,
            f"is no checkpoint of {start.run}, which has {saved}",
            f"train that run with checkpoint.also_at={start.step}",
        )
        return checkpoints.restore_step(start.step, abstract_state)


def _beginning(config: RunConfig) -> dict[str, Any]:
    """What a run and one that goes on from it have in common: the model, the batches, the kind of optimizer.

    Its numbers may differ, and its schedule: that is what branches are for.
    """
    alike = program_of(config)
    return identity(
        replace(
            alike,
            parent=config.parent,
            evaluation=EvaluationConfig(),
            optimizer=replace(alike.optimizer, schedule="constant"),
            training=replace(alike.training, steps=1, seed=config.training.seed),
        )
    )

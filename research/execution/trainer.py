"""What a worker does with runs by default: open their examples and train."""

import sys
from collections.abc import Callable, Sequence

import jax

from research.config import RunConfig
from research.data.batches import Examples, text_digests, text_examples
from research.data.example_rows import example_batches, example_digests
from research.data.synthetic import task_examples
from research.data.token_file import open_files
from research.evaluation.held_out import held_out_measures
from research.execution.faults import MachineError
from research.execution.jobs import Job
from research.models.algorithms import names
from research.runs import RunFolder, Status
from research.runs.text import record_text
from research.training import runtime
from research.training.loop import train
from research.training.objective import objective_of
from research.training.objectives.base import MakeObjective
from research.training.session import Evaluate, OnProgress, Run


def train_runs(
    runs: Sequence[Job],
    on_progress: OnProgress,
    should_stop: Callable[[], bool],
    *,
    objective: MakeObjective = objective_of,
    evaluate: Evaluate = held_out_measures,
) -> list[Status]:
    """Train each run to its end, or to a checkpoint once `should_stop` turns true; see training/loop.py. Several runs
    are of one program, and train together.

    The objective is the one that `config.objective` names. A trainer with one that the project lacks calls this with
    it, and takes the three arguments that a worker gives. What selects it must be a field of the config: runs are told
    apart by nothing else.

    The data must have been prepared: nothing here imports tensorflow. Raises DataError for text that is missing,
    damaged, or not what a run began on, MachineError in a program of several processes.
    """
    runtime.configure()
    if jax.process_count() > 1:
        raise MachineError(
            f"jax.process_count() = {jax.process_count()}: a worker trains its run by itself, and here the devices of "
            f"{jax.process_count()} processes would sum the gradients of different runs. Fix: start isoflop outside "
            "the program of several processes, or hide the other hosts' devices from it."
        )
    config = runs[0][0]
    algorithms = names(config.model, jax.default_backend(), config.training.sequence_length)
    print(f"{jax.device_count()} {jax.default_backend()} devices: {algorithms}", file=sys.stderr)  # the run's log
    return train(
        [Run(config, folder, _examples(config, folder)) for config, folder in runs],
        objective=objective,
        evaluate=evaluate,
        on_progress=on_progress,
        should_stop=should_stop,
    )


def _examples(config: RunConfig, folder: RunFolder) -> Examples:
    if config.task is not None:
        return task_examples(config)
    if config.examples is not None:
        record_text(folder, example_digests(config))
        return example_batches(config)
    files = open_files(config.data)
    record_text(folder, text_digests(config, files))
    return text_examples(config, files)

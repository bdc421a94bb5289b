"""What a worker does with a run by default: open its examples and train."""

import sys
from collections.abc import Callable

import jax

from research.config import RunConfig
from research.data.batches import text_digests, text_examples
from research.data.synthetic import task_examples
from research.data.token_file import open_files
from research.evaluation.held_out import held_out_measures
from research.execution.faults import MachineError
from research.models.algorithms import names
from research.runs import RunFolder, Status
from research.runs.text import record_text
from research.training import runtime
from research.training.loop import Evaluate, train
from research.training.objective import Objective, language_modelling


def train_run(
    config: RunConfig,
    folder: RunFolder,
    on_progress: Callable[[int, float], None],
    should_stop: Callable[[], bool],
    *,
    objective: Callable[[RunConfig], Objective] = language_modelling,
    evaluate: Evaluate = held_out_measures,
) -> Status:
    """Train `config` to its end, or to a checkpoint once `should_stop` turns true; see training/loop.py.

    A trainer with another objective calls this with it, and takes the four arguments that a worker gives. What selects
    it must be a field of the config: runs are told apart by nothing else.

    The data must have been prepared: nothing here imports tensorflow. Raises DataError for text that is missing,
    damaged, or not what the run began on, MachineError in a program of several processes.
    """
    runtime.configure()
    if jax.process_count() > 1:
        raise MachineError(
            f"jax.process_count() = {jax.process_count()}: a worker trains its run by itself, and here the devices of "
            f"{jax.process_count()} processes would sum the gradients of different runs. Fix: start isoflop outside "
            "the program of several processes, or hide the other hosts' devices from it."
        )
    if config.task is None:
        files = open_files(config.data)
        examples = text_examples(config, files)
        record_text(folder, text_digests(config, files))
    else:
        examples = task_examples(config)
    algorithms = names(config.model, jax.default_backend(), config.training.sequence_length)
    print(f"{jax.device_count()} {jax.default_backend()} devices: {algorithms}", file=sys.stderr)  # the run's log
    status = train(
        config,
        folder,
        objective=objective(config),
        examples=examples,
        evaluate=evaluate,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    jax.clear_caches()  # the next run has other shapes: what was compiled for this one would only fill memory
    return status

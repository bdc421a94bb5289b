"""What a worker does with a run by default: open its token file and train."""

from collections.abc import Callable

import jax

from research.config import RunConfig
from research.data.token_file import TokenFile, folder_of
from research.runs import RunFolder, Status
from research.training import runtime
from research.training.loop import train


def train_run(
    config: RunConfig,
    folder: RunFolder,
    on_progress: Callable[[int, float], None],
    should_stop: Callable[[], bool],
) -> Status:
    """Train `config` to its end, or to a checkpoint once `should_stop` turns true; see training/loop.py.

    The data must have been prepared: nothing here imports tensorflow.
    """
    runtime.configure()
    tokens = TokenFile.open(folder_of(config.data))
    status = train(config, folder, tokens, on_progress, should_stop)
    jax.clear_caches()  # the next run has other shapes: what was compiled for this one would only fill memory
    return status

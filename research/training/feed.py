"""Host batches as arguments of a compiled step.

One process hands its numpy arrays over as they are, and the step's in_shardings split them: placing them here first
costs more than reading them, which a small model's step notices. Several processes each provide their devices' part.
"""

from typing import Any

import jax
import numpy as np

from research.config import RunConfig
from research.data.batches import Examples
from research.sharding import batch_sharding

Batch = dict[str, Any]  # the arrays of research/data/arrays.py


def global_batch(config: RunConfig, examples: Examples, step: int, sharding: Any) -> Batch:
    """The batch of `step`; each device's rows are read for it alone, by the process that holds it."""
    batch_size = config.training.batch_size
    if jax.process_count() == 1:
        return examples.batch(step, 0, 1)
    parts: dict[int, dict[str, np.ndarray]] = {}

    def read(name: str, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(batch_size)
        if start not in parts:
            parts[start] = examples.batch(step, start // (stop - start), batch_size // (stop - start))
        return parts[start][name][(slice(None), *index[1:])]

    shapes = {name: (batch_size, *array.shape[1:]) for name, array in examples.batch(step, 0, batch_size).items()}
    return {
        name: jax.make_array_from_callback(shape, _of(sharding, len(shape)), lambda i, name=name: read(name, i))
        for name, shape in shapes.items()
    }


def whole(host_batch: dict[str, np.ndarray], sharding: Any) -> Batch:
    """A batch that every process holds in full."""
    if jax.process_count() == 1:
        return host_batch
    return {
        name: jax.make_array_from_callback(
            array.shape, _of(sharding, array.ndim), lambda index, array=array: array[index]
        )
        for name, array in host_batch.items()
    }


def _of(sharding: Any, dimensions: int) -> Any:
    """The sharding of arrays of tokens, for those that may have one number a row."""
    return batch_sharding(sharding.mesh, dimensions)

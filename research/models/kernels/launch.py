"""How our own kernels are called: by Mosaic on a TPU, by Triton on a GPU.

A program is a module with the two kernels of a backend and `Blocks`, which says what of each kind of array one instance
reads or writes, over which `grid`, and with which `scratch`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def _on_tpu(kernel: Callable, blocks: Any, inputs: list, outputs: list, interpret: bool) -> Any:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    return pl.pallas_call(
        kernel,
        grid=blocks.grid,
        in_specs=[spec for _, spec in inputs],
        out_specs=[spec for _, spec in outputs],
        out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape, _ in outputs],
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in blocks.scratch],
        # Chunks follow one another: the state is handed on in the chip's memory.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        interpret=interpret,
        name=kernel.__name__,
    )(*(array for array, _ in inputs))


def _on_gpu(kernel: Callable, blocks: Any, inputs: list, outputs: list, interpret: bool) -> Any:
    """The kernel is told `interpret`, under which there are no barriers; its scratch are further outputs."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    results = pl.pallas_call(
        functools.partial(kernel, interpret),
        grid=blocks.grid,
        in_specs=[spec for _, spec in inputs],
        out_specs=[spec for _, spec in (*outputs, *blocks.scratch)],
        out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape, _ in (*outputs, *blocks.scratch)],
        compiler_params=triton.CompilerParams(num_warps=1, num_stages=2),
        interpret=interpret,
        name=kernel.__name__,
    )(*(array for array, _ in inputs))
    return results[: len(outputs)]


# Of a backend: (kernel, blocks, inputs as (array, its blocks), outputs as (shape, their blocks), interpret) -> results.
LAUNCH: dict[str, Callable[[Callable, Any, list, list, bool], Any]] = {"gpu": _on_gpu, "tpu": _on_tpu}

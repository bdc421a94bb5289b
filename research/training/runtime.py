"""How this process runs jax: compilation cache, strictness, memory, and the speed it can reach at best."""

import ctypes
import functools
import sys
import time

import jax
import jax.numpy as jnp

from research.paths import compiled_programs_dir

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -4, -8  # <malloc.h>


def configure() -> None:
    """Set jax up for training; call once, before anything is compiled.

    Every compiled program goes to the persistent cache, however small: a ladder recompiles nothing on its next start.
    """
    programs = compiled_programs_dir()
    jax.config.update("jax_compilation_cache_dir", None if programs is None else str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    if sys.platform == "linux":
        _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc reuse the memory of one step in the next, instead of returning it to the kernel in between.

    XLA's CPU client allocates a program's buffers anew each step; above 32 MB glibc maps and unmaps them, and clearing
    the pages costs much of a small model's step: 120.0 ms became 73.8 at width 64, batch 16 x 128, on one core
    (tests/benchmarks/small_steps.py). Call it before threads start, since each arena keeps its own memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library than glibc
        return
    most = 2**31 - 1
    for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, most), (M_TOP_PAD, 2**28), (M_ARENA_MAX, 1)):
        mallopt(option, value)


@functools.cache
def matmul_flops_per_second(dtype: str) -> float:
    """The best rate of a square matrix product of this process's first device, times its devices; measured once.

    Width 1024 is large enough to be compute-bound on a CPU core and small enough to cost 0.2 s; accelerators take 8192.
    """
    size = 1024 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(square).block_until_ready()
    best_seconds = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        product(square).block_until_ready()
        best_seconds = min(best_seconds, time.perf_counter() - began)
    one_device = 2 * size**3 / best_seconds
    return one_device if jax.default_backend() == "cpu" else one_device * jax.device_count()  # CPU devices share cores

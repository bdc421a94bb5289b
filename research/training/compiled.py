"""Compile a program and say what it is: its work, collectives, memory, and what the partitioner complained of."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from research.training.hlo_cost import HloCost, hlo_cost

REPLICATED = (
    "Involuntary full rematerialization"  # XLA found no way between two shardings but to gather the whole array
)


class CompiledProgram(NamedTuple):
    """A compiled program with its counts; bytes and HloCost are of one device, one execution.

    cost: None where the compiler cannot write its own program down (libtpu for anything but a v5e), and `unreadable`
    says in its words why. peak_bytes: of arguments, results and temporaries together. replications: lines of the
    compiler's log that say "Involuntary full rematerialization", each of them a fault of the sharding.
    """

    executable: Any
    cost: HloCost | None
    unreadable: str
    arguments_bytes: int
    peak_bytes: int
    replications: int


def compiled(lowered: jax.stages.Lowered) -> CompiledProgram:
    """Compile what `jax.jit(...).lower(...)` returned, and read it.

    Compiles anew even where a persistent cache has the program, since a cached one brings no log; only a program that
    this process has compiled from the same `lower` before is not compiled again. Raises RuntimeError where warnings
    are switched off, and what XLA raises, such as for a program that does not fit into the device's memory.
    """
    if int(os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0")) > 1:
        raise RuntimeError(
            f"TF_CPP_MIN_LOG_LEVEL = {os.environ['TF_CPP_MIN_LOG_LEVEL']!r}: hides the warnings to be counted. "
            "Fix: set it to 1 before jax is imported."
        )
    with _no_cache(), _error_output() as log:
        executable = lowered.compile()
    cost, unreadable = None, ""
    try:
        cost = hlo_cost(executable.as_text())
    except jax.errors.JaxRuntimeError as error:
        unreadable = str(error).splitlines()[0]
    arguments = executable.memory_analysis().argument_size_in_bytes
    return CompiledProgram(
        executable, cost, unreadable, arguments, peak_bytes(executable), "".join(log).count(REPLICATED)
    )


def peak_bytes(executable: Any) -> int:
    """Bytes that one execution holds at most on one device, arguments and results among them, by its compiler."""
    memory = executable.memory_analysis()
    device = next(iter(jax.tree.leaves(executable.input_shardings)[0].device_set))
    if device.platform != "cpu":
        return memory.peak_memory_in_bytes
    # The CPU's compiler leaves the temporaries out of its peak.
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


@contextlib.contextmanager
def _no_cache() -> Iterator[None]:
    """Without the persistent cache of compiled programs."""
    enabled = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # whether there is one is asked once and remembered
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


@contextlib.contextmanager
def _error_output() -> Iterator[list[str]]:
    """What this process, XLA's C++ too, writes to its standard error meanwhile. It is written there as well, by a
    process of its own: a compiler that aborts this one has said why."""
    sys.stderr.flush()
    kept, written = os.dup(2), []
    try:
        with tempfile.NamedTemporaryFile() as file:
            tee = subprocess.Popen(["tee", file.name], stdin=subprocess.PIPE, stdout=kept)
            os.dup2(tee.stdin.fileno(), 2)
            try:
                yield written
            finally:
                sys.stderr.flush()
                os.dup2(kept, 2)
                tee.stdin.close()
                tee.wait()
                written.append(file.read().decode(errors="replace"))
    finally:
        os.close(kept)

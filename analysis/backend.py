"""Where the analysis computes: in float64 on the CPU, also where an accelerator is, with compiled programs kept.

A law has a handful of constants and a table some hundreds of rows: moving them to an accelerator costs more than the
arithmetic. Nothing here changes the settings of a process that only imports the analysis, such as a notebook.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax


@contextmanager
def float64_on_cpu() -> Iterator[None]:
    """Inside, jax computes in float64 on the CPU; holds for one thread, and leaves the process as it was.

    Where JAX_PLATFORMS excludes the CPU (cuda alone, say), it is the process's default device.
    """
    told = jax.config.jax_platforms
    cpu = jax.local_devices(backend="cpu")[0] if not told or "cpu" in told.split(",") else None
    with jax.enable_x64(True), jax.default_device(cpu):
        yield


def configure_command() -> None:
    """Set jax up for a command that does nothing but analysis; call it before anything is computed.

    No accelerator is opened, which takes seconds and its memory, and compiled programs are kept in `cache_dir` for the
    next command, where that can be written.
    """
    jax.config.update("jax_platforms", "cpu")
    folder = cache_dir()
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cache_dir() -> Path | None:
    """The folder of compiled programs, made where it is not there: `xla` in $ISOFLOP_CACHE or ~/.cache/isoflop.

    None where there is no home or it cannot be written: programs are then compiled anew by each command.
    """
    try:
        folder = Path(os.environ.get("ISOFLOP_CACHE") or Path.home() / ".cache" / "isoflop").expanduser() / "xla"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: pathlib finds no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None

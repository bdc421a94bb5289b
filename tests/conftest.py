"""The settings every test runs under: eight virtual CPU devices, no silent rank promotion, compiled programs kept.

They go into the environment before jax is first imported, so that xdist's workers and the processes that tests start
have them too.
"""

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from research.paths import cache_dir

VIRTUAL_DEVICES = 8


def _set_jax_environment(compiled_programs: Path) -> None:
    if "jax" in sys.modules:
        raise RuntimeError(
            "jax was imported before tests/conftest.py could set it up: find the pytest plugin that does so"
        )
    device_flag = f"--xla_force_host_platform_device_count={VIRTUAL_DEVICES}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {device_flag}".strip()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(compiled_programs)
    # Most programs in the tests are small: keep those too, but not the many that compile faster than a file is read.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"  # warnings: some tests look for those of XLA's partitioner
    os.environ["MPLBACKEND"] = "agg"


def _make_isolated_cache() -> Path:
    """A new cache folder for this session, so that no test sees the user's corpus or leaves one there.

    Compiled programs are the exception: they are keyed by their content, so they stay in the user's cache and the next
    session starts warm.
    """
    compiled_programs = cache_dir() / "xla"
    compiled_programs.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="isoflop-tests-"))
    (folder / "xla").symlink_to(compiled_programs.resolve(), target_is_directory=True)
    return folder


# The xdist workers are children of the process that makes the folder, inherit its environment and share the folder.
ISOLATED_CACHE = None
if "PYTEST_XDIST_WORKER" not in os.environ:
    ISOLATED_CACHE = _make_isolated_cache()
    os.environ["ISOFLOP_CACHE"] = str(ISOLATED_CACHE)
    _set_jax_environment(ISOLATED_CACHE / "xla")


@pytest.fixture(autouse=True)
def output_of_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is wrapped in what a test captures: pytest-xdist tells its workers the width of its own terminal."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="module", autouse=True)
def drop_compiled_programs() -> Iterator[None]:
    """What one file of tests compiled is of no use to the next, and fills gigabytes where it is kept."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def pytest_unconfigure(config) -> None:
    if ISOLATED_CACHE is not None:
        shutil.rmtree(ISOLATED_CACHE, ignore_errors=True)


def pytest_report_header(config) -> str:
    versions = " ".join(f"{name}-{importlib.metadata.version(name)}" for name in ("jax", "flax", "numpy"))
    return f"{versions}; {VIRTUAL_DEVICES} virtual CPU devices; compiled programs in {(cache_dir() / 'xla').resolve()}"

"""The analysis computes in float64 on the CPU, keeps its compiled programs, and needs no home for that."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from analysis import backend
from research.paths import cache_dir


def test_compiled_programs_lie_where_training_keeps_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    assert backend.cache_dir() == cache_dir() / "xla" == tmp_path / "xla"
    monkeypatch.delenv("ISOFLOP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert backend.cache_dir() == cache_dir() / "xla"


def test_a_home_that_is_missing_or_no_folder_means_no_cache_and_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "file"))
    assert backend.cache_dir() is None

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ISOFLOP_CACHE")
    monkeypatch.setattr(Path, "home", homeless)
    assert backend.cache_dir() is None


def test_inside_is_float64_on_the_cpu_and_outside_is_as_before():
    before = jnp.ones(1).dtype
    with backend.float64_on_cpu():
        inside = jnp.ones(1)
        assert inside.dtype == jnp.float64 and next(iter(inside.devices())).platform == "cpu"
    assert jnp.ones(1).dtype == before and jax.config.jax_default_device is None


VERBS = (
    "fit",
    "predict",
    "score",
    "backtest",
    "compare",
    "bowls",
    "critical-batch",
    "samples",
    "recipes",
    "downstream",
    "laws",
    "run",
)


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
def test_help_is_printed_without_what_computes(verb):
    code = (
        "import sys\nfrom research.command.cli import main\n"
        f"try:\n    main({[*verb, '--help']})\nexcept SystemExit:\n    pass\n"
        "sys.exit(str([m for m in ('jax', 'numpy', 'scipy', 'pandas') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]", done.stderr

"""Experiment files: loading one by its path, overriding its fields, choosing among its runs."""

import difflib
import fnmatch
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from research.config import ConfigError, RunConfig, check, override, run_label, run_name


def load(path: Path, overrides: Sequence[str] = ()) -> Any:
    """The `EXPERIMENT` of the file at `path`, `a.b=value` overrides applied: an IsoFlop, a Runs or a Grid.

    Raises ConfigError for a file that is not there or defines no experiment, and for a bad override.
    """
    check(path.is_file(), "FILE", str(path), "no such file", "give the path of an experiment file, as in experiments/")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    check(spec is not None, "FILE", str(path), "must be a Python file", "give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    experiment = getattr(module, "EXPERIMENT", None)
    check(experiment is not None, "FILE", str(path), "defines no EXPERIMENT", "add EXPERIMENT = IsoFlop(...)")
    check(
        callable(getattr(experiment, "runs", None)),
        "EXPERIMENT",
        type(experiment).__name__,
        "must be a plan",
        "make it an IsoFlop or a Runs of research/plan/isoflop.py, or a Grid of research/plan/grid.py",
    )
    experiment = override(experiment, overrides)
    check(
        re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", experiment.name),
        "name",
        experiment.name,
        "must be usable as the name of a folder",
        "use letters, digits, dots, dashes and underscores",
    )
    return experiment


def select(configs: Sequence[RunConfig], only: str | None) -> list[RunConfig]:
    """The configs whose run `only` names: its whole name, the name without the fingerprint, or a glob of either.

    Raises ConfigError, naming the nearest runs, if there is none.
    """
    if only is None:
        return list(configs)
    chosen = [c for c in configs if fnmatch.fnmatchcase(run_name(c), only) or fnmatch.fnmatchcase(run_label(c), only)]
    if not chosen:
        names = [run_label(config) for config in configs]
        near = difflib.get_close_matches(only, names, n=3, cutoff=0.3) or names[:3]
        raise ConfigError(f"--only = {only!r}: no run of this plan has that name. Nearest: {', '.join(near)}.")
    return chosen

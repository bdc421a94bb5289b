"""Experiment files: loading one by its path, overriding its fields, choosing among its runs."""

import difflib
import fnmatch
import importlib.util
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType

from research.config import ConfigError, RunConfig, check, distinct_labels, override, run_label, run_name
from research.plan.experiment import Experiment


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The `EXPERIMENT` of the file at `path`, `a.b=value` overrides applied.

    The file may import modules that lie beside it, as it may when it is run by itself.
    Raises ConfigError for a file that is not there or defines no experiment, and for a bad override.
    """
    check(path.is_file(), "FILE", str(path), "no such file", "give the path of an experiment file, as in experiments/")
    experiment = getattr(_module(path), "EXPERIMENT", None)
    check(experiment is not None, "FILE", str(path), "defines no EXPERIMENT", "add EXPERIMENT = IsoFlop(...)")
    check(
        is_dataclass(experiment) and isinstance(experiment, Experiment),
        "EXPERIMENT",
        type(experiment).__name__,
        "must be a plan",
        "make it an IsoFlop, Grid, Search or Runs of research.plan, or a dataclass with all that Experiment there has",
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


def _module(path: Path) -> ModuleType:
    """The file at `path`, executed as a module."""
    name = f"experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    check(spec is not None, "FILE", str(path), "must be a Python file", "give a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    beside = str(path.resolve().parent)
    sys.modules[name] = module  # where a dataclass that the file defines looks its annotations up
    sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
    except ConfigError:  # worded by this project
        raise
    except (Exception, SystemExit) as error:
        place = _place(error, Path(beside))
        if place is None:
            raise
        raise ConfigError(f"FILE = {str(path)!r}: {place}: {_said(error)}. Fix: correct the line.") from error
    finally:
        sys.path.remove(beside)  # a random.py there is the file's own affair, and not everyone's
    return module


def _place(error: BaseException, folder: Path) -> str | None:
    """The user's line that failed, in the experiment's file or in one beside it.

    None for an import that failed further down: what the file imports could not be imported itself, as where flax is
    not installed.
    """
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    own = [frame for frame in frames if Path(frame.filename).resolve().is_relative_to(folder)]
    if isinstance(error, ImportError) and own[-1:] != frames[-1:]:
        return None
    return f"{own[-1].filename}, line {own[-1].lineno}"


def _said(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def select(configs: Sequence[RunConfig], only: str | None) -> list[RunConfig]:
    """The configs whose run `only` names: its whole name, its label alone or as `status` prints it, or a glob of one.

    Raises ConfigError, naming the nearest runs, if there is none.
    """
    if only is None:
        return list(configs)
    labels = distinct_labels(configs)
    chosen = [
        config
        for config, label in zip(configs, labels)
        if any(fnmatch.fnmatchcase(name, only) for name in (label, run_label(config), run_name(config)))
    ]
    if not chosen:
        near = difflib.get_close_matches(only, labels, n=3, cutoff=0.3) or labels[:3]
        raise ConfigError(f"--only = {only!r}: no run of this plan has that name. Nearest: {', '.join(near)}.")
    return chosen

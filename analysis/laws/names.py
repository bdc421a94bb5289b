"""Laws by name: those that come with the package, and those that a user's own Python file defines.

A file that holds results names its law and never brings code: `load`, which runs a Python file, is for the command line
alone.
"""

import difflib
import functools
import importlib.util
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from analysis.laws.checks import check_law
from analysis.laws.critical_batch import LAWS as CRITICAL_BATCH
from analysis.laws.data_constrained import LAWS as DATA_CONSTRAINED
from analysis.laws.definition import Law, LawError
from analysis.laws.downstream import LAWS as DOWNSTREAM
from analysis.laws.experts import LAWS as EXPERTS
from analysis.laws.hyperparameters import LAWS as HYPERPARAMETERS
from analysis.laws.learning_curve import LAWS as LEARNING_CURVE
from analysis.laws.loss import LAWS as LOSS
from analysis.laws.samples import LAWS as SAMPLES

GROUPS = (LOSS, DATA_CONSTRAINED, EXPERTS, DOWNSTREAM, HYPERPARAMETERS, CRITICAL_BATCH, LEARNING_CURVE, SAMPLES)
LAWS = {law.name: law for group in GROUPS for law in group}
NEAR = 0.5  # likeness of a name to one that was meant


def find(name: str) -> Law:
    """The law of that name in `LAWS`. Raises LawError naming the nearest names, if there are any."""
    if name not in LAWS:
        near = difflib.get_close_matches(name, LAWS, n=3, cutoff=NEAR)
        use = f"use one of {', '.join(near)}, or another" if near else "use one"
        raise LawError(
            f"law = {name!r}: no such law. Fix: {use} of the {len(LAWS)} that isoflop laws lists, or FILE.py:NAME for "
            "your own."
        )
    return LAWS[name]


def load(name: str) -> Law:
    """The law of that name, or the one that a Python file defines: `FILE.py:NAME`, as in my_laws.py:SATURATING.

    Runs that file: only for what a user has typed. Raises LawError naming the nearest names, or what is wrong with the
    file.
    """
    path, colon, variable = name.rpartition(":")
    return _in_file(Path(path), variable) if colon else find(name)


def describe(law: Law) -> dict[str, Any]:
    """What a file says of a law: its name, formula, residual and the constants that are held."""
    return {"name": law.name, "formula": law.formula, "residual": law.residual, "fixed": dict(law.fixed)}


def described(data: Any, laws: Sequence[Law] = ()) -> Law:
    """Inverse of `describe` for a law in `LAWS`, or for one of the caller's own `laws`; nothing is loaded.

    Raises LawError for one that is in neither, or that has another formula than the file says.
    """
    if not isinstance(data, dict) or set(data) != {"name", "formula", "residual", "fixed"}:
        raise LawError(f"law = {data!r}: must have name, formula, residual and fixed. Fix: write the file again.")
    known = {**LAWS, **{law.name: law for law in laws}}
    if str(data["name"]) not in known:
        raise LawError(
            f"law = {data['name']!r}: no law of this package, and a file loads no code. Fix: hand the law in, as "
            "Study.from_dict(data, laws=[LAW])."
        )
    law = known[str(data["name"])]
    for field in ("formula", "residual"):
        if getattr(law, field) != data[field]:
            raise LawError(
                f"{field} of law {law.name!r}: the file has {data[field]!r}, and the law of that name here "
                f"{getattr(law, field)!r}. Fix: fit again, or hand in the file's own law."
            )
    return law.fix(**data["fixed"])


def _in_file(path: Path, variable: str) -> Law:
    if not path.is_file() or path.suffix != ".py":
        raise LawError(f"law = {str(path)!r}: no such Python file. Fix: name it as FILE.py:NAME.")
    module = _module(path.resolve(), path.stat().st_mtime_ns)
    law = getattr(module, variable, None)
    if not isinstance(law, Law):
        laws = [name for name, value in vars(module).items() if isinstance(value, Law)]
        raise LawError(
            f"law = {variable!r}: {path} defines no such law. Fix: use one of {', '.join(laws) or 'its laws'}."
        )
    return check_law(law)


@functools.cache
def _module(path: Path, changed: int) -> ModuleType:
    """The file's module, the same while it is not changed: two readings of one law would be two laws."""
    spec = importlib.util.spec_from_file_location(f"laws_in_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own file raises
        said = str(error.msg if isinstance(error, SyntaxError) else error).strip().split("\n")[0]
        raise LawError(
            f"law = {str(path)!r}: {_place(error, path)}: {type(error).__name__}{said and ': '}{said}. Fix: correct it "
            "there."
        ) from error
    return module


def _place(error: BaseException, path: Path) -> str:
    """The line at which the file at `path` failed; where one that it imports is no Python, that file and line."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{'' if error.filename == str(path) else f'{error.filename}, '}line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"line {lines[-1]}" if lines else "cannot be read"

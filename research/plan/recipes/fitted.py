"""Power laws of one's own, as `isoflop bowls` fits them to a sweep."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.config import ConfigError, check
from research.plan.recipes.definition import Rule, Scale, Settings

AXES = ("learning_rate", "batch_tokens", "weight_decay")
INPUTS = ("params", "tokens", "flops")
CONSTANTS = tuple(f"{axis}.{name}" for axis in AXES for name in ("scale", *(f"{each}_exponent" for each in INPUTS)))
AGAIN = "write the file by isoflop bowls SWEEP.csv --json FILE"


@dataclass(frozen=True)
class FittedLaws:
    """What a file of `isoflop bowls --json` says: constants by name, the fitted ranges and the fitted cells."""

    constants: tuple[tuple[str, float], ...]
    ranges: dict[str, tuple[float, float]]
    cells: tuple[tuple[float, float], ...]

    def rule(self) -> Rule:
        """The recipe with these constants, and the range and the cells that it comes from."""
        constants = dict(self.constants)
        return Rule(
            formula="; ".join(_formula(axis, constants) for axis in AXES if f"{axis}.scale" in constants),
            source="a sweep, by isoflop bowls",
            settings=lambda scale, _: _settings(scale, constants),
            ranges=self.ranges,
            cells=self.cells,
        )


def read(path: Path) -> FittedLaws:
    """The laws in a JSON file of `isoflop bowls`. Raises ConfigError for a file that is none, or that has no law."""
    try:
        found = json.loads(path.read_text())
        joint = found["joint"] or {"laws": {}}  # none where no axis has a law
        laws = {axis: law for axis, law in joint["laws"].items() if axis in AXES}
        constants, ranges, rows = {}, {}, set()
        for axis, law in laws.items():
            constants |= {f"{axis}.{name}": float(one["value"]) for name, one in law["intervals"].items()}
            ranges |= {name: (low, high) for name, (low, high) in law["ranges"].items() if name in INPUTS}
            rows |= set(law["cells"])
        cells = tuple(map(_place, _located(found["bowls"][row]["cell"] for row in sorted(rows))))
    except OSError as error:
        raise ConfigError(f"fitted = {str(path)!r}: cannot be read ({error.strerror}). Fix: {AGAIN}.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ConfigError(f"fitted = {str(path)!r}: holds no fitted laws of a sweep. Fix: {AGAIN}.") from error
    unknown, inputs, axes = sorted(constants.keys() - set(CONSTANTS)), ", ".join(INPUTS), ", ".join(AXES)
    check(not unknown, "fitted", str(path), f"has {', '.join(unknown)}, of no power law of {inputs}", AGAIN)
    check(bool(laws), "fitted", str(path), f"has no law of {axes}", "see what isoflop bowls says of each axis")
    return FittedLaws(tuple(sorted(constants.items())), ranges, cells)


def _located(cells: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of which params and tokens tell which they are."""
    return [cell for cell in cells if {"params", "tokens"} <= cell.keys()]


def _place(cell: Mapping[str, float]) -> tuple[float, float]:
    return float(cell["params"]), float(cell["tokens"])


def _formula(axis: str, constants: Mapping[str, float]) -> str:
    powers = [f"{name}^{constants[key]:.3g}" for name in INPUTS if (key := f"{axis}.{name}_exponent") in constants]
    return " ".join([f"{axis} = {constants[f'{axis}.scale']:.4g}", *powers])


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """setting = scale * params^params_exponent * tokens^tokens_exponent * flops^flops_exponent, for each that has one.

    params, tokens and flops are those of the table that the laws come from: of the runs table of this project, all
    params and the model's work.
    """
    return Settings(**{axis: _power(axis, scale, constants) for axis in AXES if f"{axis}.scale" in constants})


def _power(axis: str, scale: Scale, constants: Mapping[str, float]) -> float:
    value = constants[f"{axis}.scale"]
    for name in INPUTS:
        value *= getattr(scale, name) ** constants.get(f"{axis}.{name}_exponent", 0.0)
    return value


FITTED = Rule(
    formula="each of learning_rate, batch_tokens and weight_decay = scale * powers of params, tokens and flops",
    source="a sweep of one's own, by isoflop bowls SWEEP.csv --json FILE",
    settings=_settings,
    constants=None,
)

"""What a scaling law is: a formula in named inputs and named constants with bounds.

A law maps named inputs (columns of the runs table) to one measured quantity. To add one: write its formula as a
function of two dicts, name its parameters, list it in `LAWS`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from analysis.backend import float64_on_cpu

PADDED = (32, 128, 256, 512)  # and 768, 1024, 1536, 2048, ...
LARGEST_LOGARITHM = 690.0  # exp of it still fits in float64, and so does its inverse


class LawError(ValueError):
    """Unknown law or parameter, or a value outside its bounds; the message lists the nearest names."""


@dataclass(frozen=True)
class Parameter:
    """A constant of a law, strictly between `low` and `high`.

    The solver moves an unconstrained variable, which is what holds the bounds: log(x - low) where only `low` is finite,
    log(high - x) where only `high` is, the logit of (x - low) / (high - low) where both are, x itself where neither.

    `starts` are the values that the grid of starting points is made of, as multiples of the geometric mean of the input
    `start_unit` where one is named (a scale of size or data belongs where the table's own sizes are). Leave `starts`
    empty for a parameter in which the law is linear: those are solved for by least squares at each point of the grid
    (variable projection, Golub and Pereyra 1973).
    """

    name: str
    unit: str
    meaning: str
    starts: tuple[float, ...] = ()
    low: float = 0.0
    high: float = np.inf
    start_unit: str = ""

    def natural(self, variable: jax.Array) -> jax.Array:
        """The constant from the solver's variable: numpy arrays of any shape in numpy, jax arrays in jax."""
        exp, sigmoid = (np.exp, _sigmoid) if isinstance(variable, np.ndarray) else (jnp.exp, jax.nn.sigmoid)
        with np.errstate(over="ignore"):  # infinite, as in jax
            if np.isfinite(self.low) and np.isfinite(self.high):
                return self.low + (self.high - self.low) * sigmoid(variable)
            if np.isfinite(self.low):
                return exp(variable) if self.low == 0.0 else self.low + exp(variable)
            return self.high - exp(variable) if np.isfinite(self.high) else variable

    def variable(self, value: np.ndarray) -> np.ndarray:
        """Inverse of `natural`; a constant at or beyond a bound gives the largest finite variable on that side."""
        with np.errstate(divide="ignore", over="ignore"):
            above = np.log(np.maximum(value - self.low, 0.0)) if np.isfinite(self.low) else 0.0
            below = np.log(np.maximum(self.high - value, 0.0)) if np.isfinite(self.high) else 0.0
        if not np.isfinite(self.low) and not np.isfinite(self.high):
            return np.asarray(value, np.float64)
        moved = below if not np.isfinite(self.low) else above - below
        return np.clip(moved, -LARGEST_LOGARITHM, LARGEST_LOGARITHM)


@dataclass(frozen=True)
class Law:
    """`formula` is for people; `predict(parameters, inputs)` is for machines, on jax arrays that broadcast.

    `inputs` and `output` are names of columns of the runs table, and so carry their units. Inputs are positive, except
    those in `may_be_zero`. residual: what a fit makes small; "log" is log(law) - log(measured), for a positive output,
    and "linear" is law - measured, in the output's unit, for one that need not be positive. fixed: parameters that
    `fix` holds, as (name, value); they are no longer among `parameters`. choices: for inputs that take some values
    only, such as the number of a group, those values.
    """

    name: str
    formula: str
    citation: str
    inputs: tuple[str, ...]
    output: str
    parameters: tuple[Parameter, ...]
    predict: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], jax.Array]
    residual: Literal["log", "linear"] = "log"
    may_be_zero: tuple[str, ...] = ()
    fixed: tuple[tuple[str, float], ...] = ()
    choices: tuple[tuple[str, tuple[float, ...]], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that are fitted, in the order of every array of fitted values."""
        return tuple(parameter.name for parameter in self.parameters)

    def check(self, values: Mapping[str, float]) -> None:
        """Raise LawError for a constant that is not finite, or outside its bounds."""
        for parameter in self.parameters:
            value = values.get(parameter.name, 1.0)
            if not np.isfinite(value):
                raise LawError(f"{parameter.name} = {value:g}: must be finite in law {self.name!r}. Fix: use a number.")
            if parameter.name in values and not parameter.low <= value <= parameter.high:
                raise LawError(
                    f"{parameter.name} = {value:g}: must lie between {parameter.low:g} and {parameter.high:g} in law "
                    f"{self.name!r}. Fix: use a value inside."
                )

    def fix(self, **values: float) -> "Law":
        """This law with some of its parameters held at `values`.

        Raises LawError for a name it has not, a value that is not finite or outside that parameter's bounds, and where
        no parameter stays free.
        """
        if not values:
            return self
        free = {parameter.name: parameter for parameter in self.parameters}
        for name in values:
            if name not in free:
                raise LawError(
                    f"{name}: no such free parameter of law {self.name!r}. Fix: use one of {', '.join(free)}."
                )
        self.check(values)
        if len(values) == len(free):
            raise LawError(
                f"{', '.join(values)}: all that is free of law {self.name!r} is held, and nothing is left to fit. Fix: "
                "leave one of them free."
            )
        fixed = tuple(sorted({**dict(self.fixed), **{name: float(value) for name, value in values.items()}}.items()))
        formula = self.predict.predict if isinstance(self.predict, _Held) else self.predict
        return dataclasses.replace(
            self,
            parameters=tuple(parameter for parameter in self.parameters if parameter.name not in values),
            predict=_Held(formula, fixed),
            fixed=fixed,
        )

    def unpack(self, theta_P: jax.Array) -> dict[str, jax.Array]:
        """The law's constants from the unconstrained vector the solver moves."""
        return {p.name: p.natural(t) for p, t in zip(self.parameters, theta_P, strict=True)}

    def pack(self, values: np.ndarray) -> np.ndarray:
        """The solver's variables (..., parameters) from an array (..., parameters) of constants."""
        values = np.asarray(values, np.float64)
        return np.stack([p.variable(values[..., i]) for i, p in enumerate(self.parameters)], axis=-1)

    def natural(self, theta: np.ndarray) -> np.ndarray:
        """Inverse of `pack`."""
        theta = np.asarray(theta, np.float64)
        return np.stack([p.natural(theta[..., i]) for i, p in enumerate(self.parameters)], axis=-1)

    def target(self, output: np.ndarray) -> np.ndarray:
        """What residuals are taken on: the log of the output, or the output itself."""
        return np.log(output) if self.residual == "log" else np.asarray(output, np.float64)

    def output_of(self, target: np.ndarray) -> np.ndarray:
        """Inverse of `target`."""
        return np.exp(target) if self.residual == "log" else np.asarray(target, np.float64)

    def predict_target(self, theta_P: jax.Array, inputs: Mapping[str, jax.Array]) -> jax.Array:
        """The law on the scale of its residuals, from the solver's variables."""
        predicted = self.predict(self.unpack(theta_P), inputs)
        return jnp.log(predicted) if self.residual == "log" else predicted


@dataclass(frozen=True)
class _Held:
    """A law's `predict` with some parameters held: equal, and so compiled once, for equal values."""

    predict: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], jax.Array]
    values: tuple[tuple[str, float], ...]

    def __call__(self, parameters: Mapping[str, jax.Array], inputs: Mapping[str, jax.Array]) -> jax.Array:
        return self.predict({**dict(self.values), **parameters}, inputs)


def evaluate(law: Law, values: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The law in float64. values: (..., parameters); inputs: each (points,) or a scalar. Returns (..., points)."""
    points = np.broadcast_shapes(*(np.shape(inputs[name]) for name in law.inputs)) or (1,)
    row = padded_rows(math.prod(points))
    with float64_on_cpu():
        columns = np.moveaxis(np.asarray(values, np.float64)[..., None], -2, 0)
        shape = (1,) * (columns.ndim - 2) + row.shape
        arrays = {
            name: np.broadcast_to(np.asarray(inputs[name], np.float64), points).ravel()[row].reshape(shape)
            for name in law.inputs
        }
        predicted = evaluate_arrays(law, dict(zip(law.names, columns, strict=True)), arrays)
        predicted = np.broadcast_to(predicted, (*columns.shape[1:-1], *row.shape))
        return np.array(predicted[..., : math.prod(points)]).reshape(*columns.shape[1:-1], *points)


def padded_rows(points: int) -> np.ndarray:
    """Which row each row of a padded table is: 0, 1, ... points - 1, and the last again up to one of PADDED lengths.

    Tables of like size share a program, which takes seconds to compile, and half a second to trace where it is cached.
    """
    length = points if points < 2 else next((length for length in PADDED if length >= points), None)
    if length is None:
        power = 1 << (points - 1).bit_length()
        length = power * 3 // 4 if points <= power * 3 // 4 else power
    return np.minimum(np.arange(length), points - 1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


@functools.partial(jax.jit, static_argnames="law")
def evaluate_arrays(law: Law, constants: Mapping[str, jax.Array], inputs: Mapping[str, jax.Array]) -> jax.Array:
    """`law.predict` as one compiled program: its operations one by one are as many programs to compile and to load."""
    return law.predict(constants, inputs)


def power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """x ** exponent for x > 0, as exp(exponent * log x): cheaper than pow in float64, and smooth to differentiate."""
    return jnp.exp(exponent * jnp.log(x))

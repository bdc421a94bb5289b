"""Scaling laws as short definitions. The fitter, the intervals, the figures and the command line work for any of them.

A law maps named inputs (columns of the runs table) to one positive measured quantity. To add one: write its formula as
a function of two dicts, name its parameters, list it in `LAWS`.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np


class LawError(ValueError):
    """A law is asked for that there is none of; the message names the nearest."""


@dataclass(frozen=True)
class Parameter:
    """A constant of a law.

    A positive parameter is fitted as its logarithm, which is what holds the constraint. `starts` are the values that
    the grid of starting points is made of; leave it empty for a parameter in which the law is linear: those are solved
    for by least squares at each point of the grid (variable projection, Golub and Pereyra 1973).
    """

    name: str
    unit: str
    meaning: str
    starts: tuple[float, ...] = ()
    positive: bool = True


@dataclass(frozen=True)
class Law:
    """`formula` is for people; `predict(parameters, inputs)` is for machines, on jax arrays that broadcast.

    `inputs` and `output` are names of columns of the runs table, and so carry their units.
    """

    name: str
    formula: str
    citation: str
    inputs: tuple[str, ...]
    output: str
    parameters: tuple[Parameter, ...]
    predict: Callable[[Mapping[str, jax.Array], Mapping[str, jax.Array]], jax.Array]

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names, in the order of every array of fitted values."""
        return tuple(parameter.name for parameter in self.parameters)

    def unpack(self, theta_P: jax.Array) -> dict[str, jax.Array]:
        """The law's constants from the unconstrained vector the solver moves (logarithms where positive)."""
        return {p.name: jnp.exp(t) if p.positive else t for p, t in zip(self.parameters, theta_P, strict=True)}

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Inverse of `unpack` on an array (..., parameters) of constants."""
        values = np.asarray(values, np.float64)
        positive = np.array([parameter.positive for parameter in self.parameters])
        return np.where(positive, np.log(np.where(positive, values, 1.0)), values)


def evaluate(law: Law, values: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The law in float64. values: (..., parameters); inputs: each (points,) or a scalar. Returns (..., points)."""
    points = np.broadcast_shapes(*(np.shape(inputs[name]) for name in law.inputs)) or (1,)
    with jax.enable_x64(True):
        columns = np.moveaxis(np.asarray(values, np.float64)[..., None], -2, 0)
        shape = (1,) * (columns.ndim - 2) + points
        arrays = {
            name: jnp.asarray(np.broadcast_to(np.asarray(inputs[name], np.float64), points).reshape(shape))
            for name in law.inputs
        }
        return np.asarray(law.predict(dict(zip(law.names, map(jnp.asarray, columns), strict=True)), arrays))


def find(name: str) -> Law:
    """The law of that name. Raises LawError naming the nearest ones."""
    if name not in LAWS:
        near = difflib.get_close_matches(name, LAWS, n=3, cutoff=0.3) or list(LAWS)
        raise LawError(f"law = {name!r}: no such law. Fix: use one of {', '.join(near)}.")
    return LAWS[name]


def power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """x ** exponent for x > 0, as exp(exponent * log x): cheaper than pow in float64, and smooth to differentiate."""
    return jnp.exp(exponent * jnp.log(x))


EXPONENT_STARTS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0, 1.2)

CHINCHILLA = Law(
    name="chinchilla",
    formula="loss = E + A / params^alpha + B / tokens^beta",
    citation="Hoffmann et al. 2022, arXiv:2203.15556, section 3.3 (approach 3)",
    inputs=("params", "tokens"),
    output="loss_nats",
    parameters=(
        Parameter("E", "nats per token", "loss of an infinite model on infinite data"),
        Parameter("A", "nats per token * parameters^alpha", "scale of the loss that comes from finite size"),
        Parameter("B", "nats per token * tokens^beta", "scale of the loss that comes from finite data"),
        Parameter("alpha", "1", "exponent of params", EXPONENT_STARTS),
        Parameter("beta", "1", "exponent of tokens", EXPONENT_STARTS),
    ),
    predict=lambda p, x: p["E"] + p["A"] * power(x["params"], -p["alpha"]) + p["B"] * power(x["tokens"], -p["beta"]),
)

FRONTIER = Law(
    name="frontier",
    formula="optimum = scale * flops^exponent",
    citation="Hoffmann et al. 2022, arXiv:2203.15556, section 3.2 (approach 2)",
    inputs=("flops",),
    output="optimum",
    parameters=(
        Parameter("scale", "unit of the optimum * FLOP^-exponent", "compute-optimal params or tokens at one FLOP"),
        Parameter(
            "exponent",
            "1",
            "exponent of flops: a for params and b for tokens in the paper",
            (0.3, 0.5, 0.7),
            positive=False,
        ),
    ),
    predict=lambda p, x: p["scale"] * power(x["flops"], p["exponent"]),
)

LOSS_FRONTIER = Law(
    name="loss_frontier",
    formula="loss = E + scale / flops^exponent",
    citation="Kaplan et al. 2020, arXiv:2001.08361, section 6.1, with an irreducible loss as in Henighan et al. 2020, "
    "arXiv:2010.14701",
    inputs=("flops",),
    output="loss_nats",
    parameters=(
        Parameter("E", "nats per token", "loss at infinite compute"),
        Parameter("scale", "nats per token * FLOP^exponent", "scale of the reducible loss"),
        Parameter("exponent", "1", "exponent of flops", (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)),
    ),
    predict=lambda p, x: p["E"] + p["scale"] * power(x["flops"], -p["exponent"]),
)

LAWS = {law.name: law for law in (CHINCHILLA, FRONTIER, LOSS_FRONTIER)}

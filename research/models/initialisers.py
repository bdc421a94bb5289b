"""How parameters start: distributions, and the named scales by which a matrix's follows from its fan-in."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from research.config import ModelConfig

# (key, shape, layer) -> array. Hashable; `layer` counts from the bottom of the stack and may be traced.
Initializer = Callable[[jax.Array, tuple[int, ...], jax.Array | int], jax.Array]


@dataclass(frozen=True)
class Normal:
    """Initialiser: zero mean, the given standard deviation."""

    std: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        return self.finish(self.start(key, shape, layer))

    def start(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        """Uniform in (-1, 1): exact arithmetic, so that its numbers do not depend on how it is compiled."""
        # Drawn as a matrix: XLA's CPU compiler takes far longer over threefry with three dimensions.
        lowest = np.nextafter(np.float32(-1), np.float32(0))
        return jax.random.uniform(key, (shape[0], math.prod(shape[1:])), minval=lowest).reshape(shape)

    def finish(self, uniform: jax.Array) -> jax.Array:
        """Normal numbers from uniform ones, as `jax.random.normal` makes them.

        In rows of 128: the last digit of erf_inv depends on whether XLA's loop reaches a number as part of a vector
        or as a remainder, and so on the shape of the loop, which differs between an array and its parts on a mesh.
        """
        rows = -(-uniform.size // 128)
        padded = jnp.pad(uniform.reshape(-1), (0, rows * 128 - uniform.size)).reshape(rows, 128)
        padded = jax.lax.optimization_barrier(padded)
        normal = jax.lax.optimization_barrier(self.std * (np.float32(math.sqrt(2)) * jax.lax.erf_inv(padded)))
        return normal.reshape(-1)[: uniform.size].reshape(uniform.shape)


@dataclass(frozen=True)
class Uniform:
    """Initialiser: uniform in [-bound, bound]."""

    bound: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        matrix = jax.random.uniform(key, (shape[0], math.prod(shape[1:])), minval=-self.bound, maxval=self.bound)
        return matrix.reshape(shape)


@dataclass(frozen=True)
class Orthogonal:
    """Initialiser: orthonormal rows or columns, whichever are fewer, times `gain` (Saxe 2014).

    A weight of more dimensions is the matrix of its first one and the others.
    """

    gain: float

    def __call__(self, key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
        matrix = jax.nn.initializers.orthogonal(self.gain)(key, (shape[0], math.prod(shape[1:])))
        return matrix.reshape(shape)


def ones(key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
    """Initialiser of gains."""
    return jnp.ones(shape)


def zeros(key: jax.Array, shape: tuple[int, ...], layer: jax.Array | int) -> jax.Array:
    """Initialiser of biases."""
    return jnp.zeros(shape)


def two_a_layer(config: ModelConfig) -> int:
    """Residual branches as GPT-2 counts them, whatever the layers hold."""
    return 2 * config.depth


def residual_writes(config: ModelConfig) -> int:
    """How many mixers add to the residual stream; Mamba's published code divides their last matrix by its root."""
    return sum(map(len, config.layers))


@dataclass(frozen=True)
class FanIn:
    """A named scale: `gain` / sqrt(fan-in), and / sqrt(`branches`) for the last matrix of a residual branch.

    kind: Normal, of which it is the standard deviation, or Uniform, of which it is the bound.
    """

    kind: type[Normal] | type[Uniform]
    gain: float = 1.0
    branches: Callable[[ModelConfig], int] | None = None

    def of(self, fan_in: int, config: ModelConfig | None) -> Normal | Uniform:
        """The initialiser for a fan-in, in a model (None: of a part of one, without branches)."""
        if self.branches is None:
            return self.kind(self.gain * fan_in**-0.5)
        relative = config.parametrisation.depth_ratio(config.depth) ** 0.5  # 1 but where depth has a multiplier
        return self.kind(self.gain * (fan_in * self.branches(config)) ** -0.5 * relative)


NORMAL, UNIFORM = FanIn(Normal), FanIn(Uniform)
NORMAL_OUT, UNIFORM_OUT = FanIn(Normal, branches=two_a_layer), FanIn(Uniform, branches=residual_writes)


def resolved(init: Initializer | FanIn, fan: int, config: ModelConfig | None, factor: float) -> Initializer:
    """What a parameter starts by: the named scale at its fan, times `factor`.

    A fixed distribution stays what it is: it has no scale that would change with a model's size.
    """
    if isinstance(init, FanIn):
        init = init.of(fan, config)
    elif not isinstance(init, Orthogonal):
        return init
    name = {Normal: "std", Uniform: "bound", Orthogonal: "gain"}[type(init)]
    return replace(init, **{name: getattr(init, name) * factor})

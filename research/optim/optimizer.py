"""The optimizer of a run as one optax transformation: any optimizer's direction, between what all have in common."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.core.meta import AxisMetadata

from research.config import OptimizerConfig
from research.optim.parametrisation import ROLES, Scaling
from research.optim.schedules import learning_rate


def decayed(boxed: Any) -> Any:
    """True for large matrices and taps, False for the other roles: the mask of weight decay."""
    return _of_each(boxed, lambda box: ROLES[box.role].decayed)


def make_optimizer(config: OptimizerConfig, boxed: Any, numbers: Mapping[str, Any]) -> optax.GradientTransformation:
    """Global-norm clipping, the optimizer's direction, decoupled weight decay on `decayed(boxed)`, and the rate.

    numbers: config.numbers(steps), or the same traced: they decide no shape and no program. Parameters of the role
    `dynamics` learn at no more than `dynamics_learning_rate`, on the same schedule. Rate, decay and epsilon of each are
    multiplied with those of its scaling (parametrisation.py): gradients are divided by the last first, which leaves the
    steps of an optimizer that ignores their size as they are and multiplies its epsilon; those that follow it (SGD) get
    the rate that such a gradient asks for.

    `boxed` is the parameter tree of `language_model.abstract`; the transformation itself works on unboxed trees.
    """

    scalings = _of_each(boxed, lambda box: box.scaling.by_optimizer(config, box.matrix))
    axes = _of_each(boxed, lambda box: box.matrix)

    def by(of: Callable[[Scaling], float]) -> Any:
        return jax.tree.map(of, scalings, is_leaf=lambda leaf: isinstance(leaf, Scaling))

    def rate(step: jax.Array) -> jax.Array:
        return learning_rate(config.schedule, numbers, step)

    parts = [
        *_times(by(lambda scaling: 1 / scaling.epsilon)),
        config.direction(numbers, axes),
        # Steps over their decay's scale meet the decay, and both times it and the rate's are the update.
        *_times(by(lambda scaling: 1 / scaling.decay)),
        optax.add_decayed_weights(numbers["weight_decay"], decayed(boxed)),
        *_times(by(lambda scaling: scaling.decay * scaling.rate)),
        optax.scale_by_learning_rate(rate),
    ]
    dynamics = _of_each(boxed, lambda box: box.role == "dynamics")
    if any(jax.tree.leaves(dynamics)):
        share = jnp.minimum(1.0, numbers["dynamics_learning_rate"] / numbers["learning_rate"])
        parts.append(optax.masked(optax.scale(share), dynamics))
    update = config.wrapped(optax.chain(*parts), numbers, axes, rate)
    return update if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(numbers["clip_norm"]), update)


def _times(factors: Any) -> list[optax.GradientTransformation]:
    """Each update times its own factor; nothing at all where all are 1."""
    if all(factor == 1 for factor in jax.tree.leaves(factors)):
        return []
    return [optax.stateless(lambda updates, params: jax.tree.map(lambda u, by: u * by, updates, factors))]


def _of_each(boxed: Any, of: Callable[[Any], Any]) -> Any:
    """What `of` says of each parameter's box."""
    return jax.tree.map(of, boxed, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))

"""The optimizer of a run as one optax transformation, configured by each parameter's role and scaling."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.core.meta import AxisMetadata

from research.config import OptimizerConfig
from research.optim.parametrisation import ROLES
from research.optim.schedules import learning_rate


def decayed(boxed: Any) -> Any:
    """True for large matrices and taps, False for the other roles: the mask of weight decay."""
    return _of_each(boxed, lambda box: ROLES[box.role].decayed)


def make_optimizer(config: OptimizerConfig, boxed: Any, steps: int) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW with decoupled weight decay on `decayed(boxed)`.

    Parameters of the role `dynamics` learn at no more than `dynamics_learning_rate`, on the same schedule. Rate, decay
    and epsilon of each are multiplied with those of its scaling (parametrisation.py): gradients are divided by the last
    before Adam sees them, which leaves its steps as they are and multiplies its epsilon.

    `boxed` is the parameter tree of `language_model.abstract`; the transformation itself works on unboxed trees.
    """
    parts = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    dtype = config.first_moment_dtype
    # Steps over their decay's scale meet the decay, and both times it and the rate's are the update.
    adamw = optax.chain(
        *_times(_of_each(boxed, lambda box: 1 / box.scaling.epsilon)),
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon, mu_dtype=dtype),
        *_times(_of_each(boxed, lambda box: 1 / box.scaling.decay)),
        optax.add_decayed_weights(config.weight_decay, decayed(boxed)),
        *_times(_of_each(boxed, lambda box: box.scaling.decay * box.scaling.rate)),
        optax.scale_by_learning_rate(lambda step: learning_rate(config, step, steps)),
    )
    parts.append(adamw if dtype == "float32" else _in_float32(adamw))
    dynamics = _of_each(boxed, lambda box: box.role == "dynamics")
    share = min(1.0, config.dynamics_learning_rate / config.learning_rate)
    if share < 1 and any(jax.tree.leaves(dynamics)):
        parts.append(optax.masked(optax.scale(share), dynamics))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)


def _in_float32(adamw: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same of a first moment that is kept in another dtype: optax alone would round beta1 to it, .95 to .949."""

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        first = optax.tree.cast(optax.tree.get(state, "mu"), jnp.float32)
        return adamw.update(grads, optax.tree.set(state, mu=first), params)

    return optax.GradientTransformation(adamw.init, update)


def _times(factors: Any) -> list[optax.GradientTransformation]:
    """Each update times its own factor; nothing at all where all are 1."""
    if all(factor == 1 for factor in jax.tree.leaves(factors)):
        return []
    return [optax.stateless(lambda updates, params: jax.tree.map(lambda u, by: u * by, updates, factors))]


def _of_each(boxed: Any, of: Callable[[Any], Any]) -> Any:
    """What `of` says of each parameter's box."""
    return jax.tree.map(of, boxed, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))

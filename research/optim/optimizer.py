"""The optimizer of a run as one optax transformation, configured by each parameter's role."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.core.meta import AxisMetadata

from research.config import OptimizerConfig
from research.optim.schedules import learning_rate


def decayed(boxed: Any) -> Any:
    """True for large matrices and taps, False for the other roles: the mask of weight decay."""
    return _with_role(boxed, lambda role: role not in ("vector", "low_rank", "dynamics", "balance"))


def make_optimizer(config: OptimizerConfig, boxed: Any, steps: int) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW with decoupled weight decay on `decayed(boxed)`.

    Parameters of the role `dynamics` learn at no more than `dynamics_learning_rate`, on the same schedule.

    `boxed` is the parameter tree of `language_model.abstract`; the transformation itself works on unboxed trees.
    """
    parts = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    adamw = optax.adamw(
        lambda step: learning_rate(config, step, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed(boxed),
        mu_dtype=config.first_moment_dtype,
    )
    parts.append(adamw if config.first_moment_dtype == "float32" else _in_float32(adamw))
    dynamics = _with_role(boxed, lambda role: role == "dynamics")
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


def _with_role(boxed: Any, chosen: Callable[[str], bool]) -> Any:
    """True where a parameter's role is chosen."""
    return jax.tree.map(lambda box: chosen(box.role), boxed, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))

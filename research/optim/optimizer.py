"""The optimizer of a run as one optax transformation, built from what the parameters say of themselves."""

from typing import Any

import jax
import optax
from flax.core.meta import AxisMetadata

from research.config import OptimizerConfig
from research.optim.schedules import learning_rate


def decayed(boxed: Any) -> Any:
    """True for matrices, False for the role `vector` (norm gains and biases): the mask of weight decay."""
    return jax.tree.map(lambda box: box.role != "vector", boxed, is_leaf=lambda leaf: isinstance(leaf, AxisMetadata))


def make_optimizer(config: OptimizerConfig, boxed: Any, steps: int) -> optax.GradientTransformation:
    """Global-norm clipping, then AdamW with decoupled weight decay on `decayed(boxed)`.

    `boxed` is the parameter tree of `language_model.abstract`; the transformation itself works on unboxed trees.
    """
    adamw = optax.adamw(
        lambda step: learning_rate(config, step, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decayed(boxed),
    )
    return adamw if config.clip_norm is None else optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)

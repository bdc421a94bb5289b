"""What the routers of a model add to a training step: their auxiliary losses and their metrics.

`routing` is the tree that language_model.hidden returns, empty for a model without a mixture of experts.
"""

from typing import Any

import jax
import jax.numpy as jnp

from research.config import MoeConfig
from research.models.experts.router import RouterStatistics


def auxiliary_loss(config: MoeConfig, routing: Any) -> jax.Array:
    """balance_loss * E * sum_i f_i P_i + router_z_loss * mean(logsumexp(logits)^2), in the mean over layers.

    f_i is the share of choices that went to expert i, P_i the mean of its score: over the batch, or over each sequence
    and then averaged over these, which alone adds up over microbatches. Means over tokens are taken within a sequence.
    """
    layers = [_layer_loss(config, one) for one in _layers(routing)]
    return jnp.concatenate([one.reshape(-1) for one in layers]).mean() if layers else jnp.zeros(())


def _layer_loss(config: MoeConfig, statistics: RouterStatistics) -> jax.Array:
    z = (statistics.z_B1 / jnp.maximum(statistics.tokens_B1, 1.0)).mean(axis=(-2, -1))
    if config.balance_over == "batch":
        statistics = jax.tree.map(lambda a: a.sum(axis=-2, keepdims=True), statistics)
    share = statistics.load_BE / jnp.maximum(statistics.load_BE.sum(axis=-1, keepdims=True), 1.0)
    mean_score = statistics.probability_BE / jnp.maximum(statistics.tokens_B1, 1.0)
    balance = config.experts * (share * mean_score).sum(axis=-1).mean(axis=-1)
    return config.balance_loss * balance + config.router_z_loss * z


def summed(routing: Any) -> Any:
    """The same tree with statistics summed over the sequences of the batch: (..., E) and (..., 1)."""
    return jax.tree.map(lambda a: jax.lax.stop_gradient(a).sum(axis=-2), routing)


def router_metrics(config: MoeConfig, routing: Any, auxiliary: jax.Array) -> dict[str, jax.Array]:
    """Over all mixtures of experts of the model, from the statistics `summed` over the batch; empty without one.

    `router_max_load`: the largest load over the mean load of its layer, the worst layer's. `router_dead_experts`: those
    that no token of the batch chose. `router_dropped_fraction`: of choices, or of tokens under expert choice.
    """
    layers = _layers(routing)
    if not layers:
        return {}

    def joined(name: str) -> jax.Array:
        return jnp.concatenate([(a := getattr(one, name)).reshape(-1, a.shape[-1]) for one in layers])

    load, tokens = joined("load_BE"), joined("tokens_B1").sum()
    asked = load.sum() if config.routing == "token_choice" else tokens
    return {
        "auxiliary_loss": auxiliary,
        "router_max_load": (load.max(axis=1) / load.mean(axis=1)).max(),
        "router_entropy_nats": joined("entropy_B1").sum() / tokens,
        "router_dropped_fraction": joined("dropped_B1").sum() / asked,
        "router_dead_experts": (load == 0).sum().astype(jnp.float32),
    }


def _layers(routing: Any) -> list[RouterStatistics]:
    return jax.tree.leaves(routing, is_leaf=lambda leaf: isinstance(leaf, RouterStatistics))

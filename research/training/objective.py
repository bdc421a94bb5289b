"""What a training step minimises, as a value: pure functions of (params, batch) that the step is handed.

The step (step.py) knows how to accumulate, differentiate, shard and update. What the loss is, which arrays of the batch
it reads and what is logged of it is said here. Another objective (a reward model's loss, DPO, distillation) is another
function like `language_modelling`, in a file of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.config import RunConfig
from research.data.arrays import PAIRED_ARRAYS, TEXT_ARRAYS
from research.models import language_model
from research.optim.expert_bias import balanced
from research.training.loss import LossSums, cross_entropy
from research.training.routing import auxiliary_loss, router_metrics, summed

Batch = dict[str, jax.Array]


class Terms(NamedTuple):
    """The objective on some rows of a batch.

    The objective of a whole batch is the sum of `loss` over its microbatches divided by the batch's weight, plus the
    mean of `penalty` over them, so that microbatches of unequal weight change nothing.
    """

    loss: jax.Array  # sum over the rows
    penalty: jax.Array  # a mean over the rows, added with weight one
    sums: Any  # pytree of arrays that add up over microbatches: what `metrics` and `after_update` read
    spread: Any = None  # of the gradient over microbatches (noise_scale.py), from the step where it is asked for


class Objective(NamedTuple):
    """An objective and what goes with it.

    arrays: the names of the batch's arrays (research/data/arrays.py).
    weight(batch): what the summed loss is divided by.
    metrics(sums, weight, penalty) -> {name: scalar}, with `loss_nats`, which stops a run once it is not finite.
    evaluate(params, batch): sums over a held-out batch, for whoever evaluates.
    after_update(params, sums) -> params: changes that no gradient makes.
    """

    arrays: tuple[str, ...]
    weight: Callable[[Batch], jax.Array]
    terms: Callable[[Any, Batch], Terms]
    metrics: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]
    evaluate: Callable[[Any, Batch], Any]
    after_update: Callable[[Any, Any], Any] = lambda params, sums: params


class LanguageModelSums(NamedTuple):
    losses: LossSums
    routing: Any  # of language_model.hidden, summed over sequences


def language_modelling(config: RunConfig) -> Objective:
    """Next-token cross-entropy with z-loss, the routers' auxiliary losses, and their balancing bias."""
    model, moe, z_loss = config.model, config.model.moe, config.training.z_loss

    def losses(params: Any, batch: Batch) -> tuple[LossSums, Any]:
        sources = (batch["sources"], batch["source_weights"] > 0) if model.encoder is not None else None
        x_BLD, head_DV, routing = language_model.hidden(model, params, batch["inputs"], sources=sources)
        return cross_entropy(x_BLD, head_DV, batch["targets"], batch["weights"], z_loss), routing

    def terms(params: Any, batch: Batch) -> Terms:
        sums, routing = losses(params, batch)
        return Terms(sums.loss, auxiliary_loss(moe, routing), LanguageModelSums(sums, summed(routing)))

    def metrics(sums: LanguageModelSums, weight: jax.Array, penalty: jax.Array) -> dict[str, jax.Array]:
        return {
            "loss_nats": sums.losses.nats / weight,
            "objective_nats": sums.losses.loss / weight + penalty,
            **router_metrics(moe, sums.routing, penalty),
        }

    return Objective(
        arrays=TEXT_ARRAYS if model.encoder is None else PAIRED_ARRAYS,
        weight=lambda batch: jnp.sum(batch["weights"]),
        terms=terms,
        metrics=metrics,
        evaluate=lambda params, batch: losses(params, batch)[0],
        after_update=lambda params, sums: balanced(moe, params, sums.routing),
    )

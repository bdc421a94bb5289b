"""Next-token language modelling, of text and of pairs of source and target."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.config import RunConfig
from research.data.batches import Validation
from research.optim.expert_bias import balanced
from research.training.loss import LossSums, cross_entropy
from research.training.objectives.base import Batch, Objective, Terms, final_states, text_arrays
from research.training.routing import auxiliary_loss, router_metrics, summed


class LanguageModelSums(NamedTuple):
    losses: LossSums
    routing: Any  # of language_model.hidden, summed over sequences


def language_modelling(config: RunConfig) -> Objective:
    """Next-token cross-entropy with z-loss, the routers' auxiliary losses, and their balancing bias."""
    model, moe, z_loss = config.model, config.model.moe, config.training.z_loss

    def losses(params: Any, batch: Batch) -> tuple[LossSums, Any]:
        x_BLD, heads, routing = final_states(model, params, batch)
        return cross_entropy(x_BLD, heads.vocabulary_DV, batch["targets"], batch["weights"], z_loss), routing

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
        arrays=text_arrays(model),
        weight=lambda batch: jnp.sum(batch["weights"]),
        terms=terms,
        metrics=metrics,
        evaluate=lambda params, batch: losses(params, batch)[0],
        measures=token_measures,
        after_update=lambda params, sums: balanced(moe, params, sums.routing),
    )


def token_measures(total: LossSums, held_out: Validation) -> dict[str, float]:
    """What next-token sums over the held-out examples of a domain say.

    loss_nats, of a token; token_accuracy (share of tokens whose most probable value is right, the text before given);
    brier (the mean Brier score of a token, 0 to 2, which falls smoothly where token_accuracy jumps); exact_match (share
    of examples with every token right, which is what greedy decoding would reproduce); and, for text, bits_per_byte:
    the loss of a token in bits, times tokens per byte of the text those tokens stand for, so it compares models of
    different tokenizers.
    """
    measures = {
        "loss_nats": total.nats / held_out.tokens,
        "token_accuracy": total.correct / held_out.tokens,
        "exact_match": total.exact / total.rows,
        "brier": total.brier / held_out.tokens,
    }
    if held_out.text_bytes is not None:
        measures["bits_per_byte"] = total.nats / math.log(2) / held_out.text_bytes
    return measures

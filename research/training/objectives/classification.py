"""Which class a row is of: cross-entropy of the class head's logits after the row's last token."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from research.config import RunConfig
from research.data.batches import Validation
from research.models.heads import last_of_row, row_class_logits
from research.optim.expert_bias import balanced
from research.training.objectives.base import Batch, Objective, Terms, final_states, labelled_arrays
from research.training.routing import auxiliary_loss, router_metrics, summed


class ClassSums(NamedTuple):
    """Sums over rows, each weighted by the label weight of the token it is judged after."""

    nats: jax.Array
    correct: jax.Array  # rows whose label has the highest logit
    brier: jax.Array  # sum over classes of (probability - 1 at the label)^2 (Brier 1950)
    weight: jax.Array


def classification(config: RunConfig) -> Objective:
    """-log softmax(class logits)[label] after the last token of each row whose label weight is above zero.

    The routers' auxiliary losses are added as in language modelling. Measures: loss_nats, accuracy and brier, of a row.
    """
    model, moe = config.model, config.model.moe

    def sums(params: Any, batch: Batch) -> tuple[ClassSums, Any]:
        x_BLD, heads, routing = final_states(model, params, batch)
        logits_BC = row_class_logits(x_BLD, heads, batch["label_weights"] > 0)
        return class_sums(logits_BC, batch["labels"], _row_weights(batch)), routing

    def terms(params: Any, batch: Batch) -> Terms:
        found, routing = sums(params, batch)
        return Terms(found.nats, auxiliary_loss(moe, routing), (found, summed(routing)))

    def metrics(sums: tuple[ClassSums, Any], weight: jax.Array, penalty: jax.Array) -> dict[str, jax.Array]:
        found, routing = sums
        return {
            "loss_nats": found.nats / weight,
            "objective_nats": found.nats / weight + penalty,
            "accuracy": found.correct / weight,
            **router_metrics(moe, routing, penalty),
        }

    return Objective(
        arrays=labelled_arrays(model),
        weight=lambda batch: jnp.sum(_row_weights(batch)),
        terms=terms,
        metrics=metrics,
        evaluate=lambda params, batch: sums(params, batch)[0],
        measures=_measures,
        after_update=lambda params, sums: balanced(moe, params, sums[1]),
    )


def class_sums(logits_BC: jax.Array, labels_B: jax.Array, weights_B: jax.Array) -> ClassSums:
    """Weighted sums of what logits (B, C), float32, say of labels (B,) int32, 0 to C - 1."""
    log_BC = jax.nn.log_softmax(logits_BC)
    is_label_BC = jax.nn.one_hot(labels_B, logits_BC.shape[1], dtype=logits_BC.dtype)
    of_label_B = jnp.sum(is_label_BC * logits_BC, axis=1)
    return ClassSums(
        nats=-jnp.sum(weights_B[:, None] * is_label_BC * log_BC),
        correct=jnp.sum(weights_B * (of_label_B >= logits_BC.max(axis=1))),  # a tie is right, a NaN is not
        brier=jnp.sum(weights_B[:, None] * (jnp.exp(log_BC) - is_label_BC) ** 2),
        weight=jnp.sum(weights_B),
    )


def _row_weights(batch: Batch) -> jax.Array:
    weights_BL = batch["label_weights"]
    return jnp.sum(jnp.where(last_of_row(weights_BL > 0), weights_BL, 0.0), axis=1)


def _measures(total: ClassSums, held_out: Validation) -> dict[str, float]:
    return {
        "loss_nats": total.nats / total.weight,
        "accuracy": total.correct / total.weight,
        "brier": total.brier / total.weight,
    }

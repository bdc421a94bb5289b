"""A verifier of solutions (Cobbe 2021, arXiv:2110.14168, section 4.2): after each token, is it going to be right?"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.config import RunConfig
from research.data.batches import Validation
from research.models.heads import last_of_row, token_scores
from research.optim.expert_bias import balanced
from research.training.loss import LossSums, cross_entropy
from research.training.objectives.base import Batch, Objective, Terms, final_states, labelled_arrays
from research.training.objectives.language_modelling import token_measures
from research.training.routing import auxiliary_loss, router_metrics, summed

CALIBRATION_BINS = 15  # of equal width in the estimate
RANK_BINS = 1024  # scores in one bin count as tied


class Judgements(NamedTuple):
    """Sums over rows of what is estimated after the last token, each row weighted by that token's label weight."""

    weight: jax.Array
    correct: jax.Array  # rows whose estimate lies on the label's side of one half
    excess: jax.Array  # (CALIBRATION_BINS,): of the estimate over the label, by the estimate's bin
    ranked: jax.Array  # (2, RANK_BINS): weight of the rows of each label, by the bin of their score


class VerifierSums(NamedTuple):
    words: LossSums
    loss: jax.Array  # of the verifier, over tokens
    weight: jax.Array  # of these tokens
    judged: Judgements


LOSSES: Mapping[str, Any] = {  # of scores and labels, elementwise
    "squared_error": lambda scores, labels: (scores - labels) ** 2,
    "logistic": lambda scores, labels: jax.nn.softplus(scores) - labels * scores,
}


def verifier(config: RunConfig) -> Objective:
    """Mean over tokens of language_weight * next-token nats + the verifier's loss, of the scalar against the label.

    The former is summed over `weights`, the latter over `label_weights`, and both are divided by the sum of `weights`:
    with a weight of one at each token of a solution, where it is written and where it is judged, each is a mean.
    Measures: those of tokens, with their loss_nats, and of the verifier verifier_loss (of a token) and, after the last
    token of a row, accuracy, calibration_error (the mean over rows of |estimate - label| summed up within bins of the
    estimate; Guo 2017, arXiv:1706.04599, section 2) and auc, the share of pairs of a right row and a wrong one in which
    the right one has the higher score, where there are both.
    """
    model, moe, chosen = config.model, config.model.moe, config.objective

    def sums(params: Any, batch: Batch) -> tuple[VerifierSums, Any]:
        x_BLD, heads, routing = final_states(model, params, batch)
        words = cross_entropy(x_BLD, heads.vocabulary_DV, batch["targets"], batch["weights"], config.training.z_loss)
        scores_BL, weights_BL = token_scores(x_BLD, heads), batch["label_weights"]
        labels_B = batch["labels"].astype(scores_BL.dtype)
        loss = jnp.sum(weights_BL * LOSSES[chosen.loss](scores_BL, labels_B[:, None]))
        is_last_BL = last_of_row(weights_BL > 0)
        last_B, weight_B = (jnp.sum(jnp.where(is_last_BL, a, 0.0), axis=1) for a in (scores_BL, weights_BL))
        judged = judgements(*estimates(chosen.loss, last_B), labels_B, weight_B)
        return VerifierSums(words, loss, jnp.sum(weights_BL), judged), routing

    def terms(params: Any, batch: Batch) -> Terms:
        found, routing = sums(params, batch)
        loss = found.loss + chosen.language_weight * found.words.loss
        return Terms(loss, auxiliary_loss(moe, routing), (found, summed(routing)))

    def metrics(sums: tuple[VerifierSums, Any], weight: jax.Array, penalty: jax.Array) -> dict[str, jax.Array]:
        found, routing = sums
        return {
            "loss_nats": found.words.nats / weight,
            "objective_nats": (found.loss + chosen.language_weight * found.words.loss) / weight + penalty,
            "verifier_loss": found.loss / found.weight,
            "accuracy": found.judged.correct / found.judged.weight,
            **router_metrics(moe, routing, penalty),
        }

    return Objective(
        arrays=labelled_arrays(model),
        weight=lambda batch: jnp.sum(batch["weights"]),
        terms=terms,
        metrics=metrics,
        evaluate=lambda params, batch: sums(params, batch)[0],
        measures=_measures,
        after_update=lambda params, sums: balanced(moe, params, sums[1]),
    )


def estimates(loss: str, scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the probability that a solution is right, its place among all scores from 0 to 1) for scores of a loss.

    A squared error's scores may lie outside of 0 to 1, where the probability is cut and the place is not.
    """
    if loss == "logistic":
        return jax.nn.sigmoid(scores), jax.nn.sigmoid(scores)
    return jnp.clip(scores, 0.0, 1.0), jax.nn.sigmoid(4 * scores - 2)  # near one half its slope is that of the score


def judgements(estimates_B: jax.Array, places_B: jax.Array, labels_B: jax.Array, weights_B: jax.Array) -> Judgements:
    """The sums, of estimates and places in 0 to 1, labels of 0.0 or 1.0 and weights, each (B,)."""
    right_B = jnp.where(labels_B > 0.5, estimates_B > 0.5, estimates_B < 0.5)  # one half, or a NaN, is not
    excess_B = weights_B * (estimates_B - labels_B)
    of_label_2B = jnp.stack([weights_B * (1 - labels_B), weights_B * labels_B])
    return Judgements(
        weight=jnp.sum(weights_B),
        correct=jnp.sum(weights_B * right_B),
        excess=jnp.sum(excess_B[:, None] * _in_bin(estimates_B, CALIBRATION_BINS), axis=0),
        ranked=jnp.sum(of_label_2B[..., None] * _in_bin(places_B, RANK_BINS)[None], axis=1),
    )


def _in_bin(values_B: jax.Array, bins: int) -> jax.Array:
    """(B, bins): one in the bin of each value in 0 to 1."""
    return jax.nn.one_hot(jnp.clip((values_B * bins).astype(jnp.int32), 0, bins - 1), bins)


def judged_measures(total: Judgements) -> dict[str, float]:
    """accuracy, calibration_error and, where both labels occur, auc of sums over all rows."""
    found = {
        "accuracy": total.correct / total.weight,
        "calibration_error": np.abs(total.excess).sum() / total.weight,
    }
    wrong, right = total.ranked
    if wrong.sum() > 0 and right.sum() > 0:
        below = np.cumsum(wrong) - wrong
        found["auc"] = np.sum(right * (below + wrong / 2)) / (right.sum() * wrong.sum())
    return found


def _measures(total: VerifierSums, held_out: Validation) -> dict[str, float]:
    return {
        **token_measures(total.words, held_out),
        "verifier_loss": total.loss / total.weight,
        **judged_measures(total.judged),
    }

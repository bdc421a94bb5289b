"""The probability of a given text under a model, without writing any."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.config import ModelConfig, check
from research.generation.decode import log_probabilities
from research.models import language_model


class Scores(NamedTuple):
    """Under the model's own logits ("model" of LogProbs), in nats; each text's first token has none, as no text is
    before it, and padding has zeros."""

    logprobs_BL: np.ndarray  # (B, L - 1): of each token but the first of the array
    summed_B: np.ndarray  # over a text's tokens, or those after `given`
    counted_B: np.ndarray  # how many tokens the sum is over
    best_BLN: np.ndarray | None = None  # the N likeliest tokens at each place
    best_logprobs_BLN: np.ndarray | None = None


def score(
    config: ModelConfig,
    params: Any,
    tokens_BL: np.ndarray,
    mask_BL: np.ndarray | None = None,
    *,
    given_B: np.ndarray | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
    best: int = 0,
) -> Scores:
    """Log-probabilities of texts (B, L) in one pass, padded on the left where mask_BL is false.

    given_B: tokens at a text's beginning, such as a prompt's, that the sum leaves out; 1 if not given. best: as of
    LogProbs.

    Raises ConfigError for texts of one token, which have nothing to score.
    """
    L = tokens_BL.shape[1]
    check(L >= 2, "text", f"{L} tokens", "must hold two tokens at least, of which the second is scored", "lengthen it")
    found = {name: np.array(value) for name, value in _score(config, best, params, tokens_BL, mask_BL, sources).items()}
    real_BL = np.ones(tokens_BL.shape, bool) if mask_BL is None else np.asarray(mask_BL)
    number_BL = np.cumsum(real_BL, axis=1)[:, 1:]  # of each token in its text, from 1
    for array in found.values():
        array[~real_BL[:, :-1]] = 0
    counted_BL = real_BL[:, :-1] & (number_BL > (1 if given_B is None else np.asarray(given_B)[:, None]))
    summed_B = np.sum(found["logprobs_BT"], axis=1, where=counted_BL)
    return Scores(
        found["logprobs_BT"],
        summed_B,
        counted_BL.sum(axis=1),
        found.get("best_BTN"),
        found.get("best_logprobs_BTN"),
    )


@partial(jax.jit, static_argnums=(0, 1))
def _score(
    config: ModelConfig, best: int, params: Any, tokens_BL: jax.Array, mask_BL: Any, sources: Any
) -> dict[str, jax.Array]:
    logits_BLV = language_model.logits(config, params, tokens_BL, mask_BL, sources)[:, :-1]
    B, L, V = logits_BLV.shape
    found = log_probabilities(logits_BLV.reshape(-1, V), jnp.asarray(tokens_BL)[:, 1:].reshape(-1), best)
    return {name: value.reshape(B, L, *value.shape[1:]) for name, value in found.items()}

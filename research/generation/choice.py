"""From logits to the next token, as pure functions of (B, V) arrays; nothing here knows of models or loops.

`transformed` applies what binds any choice, in Hugging Face's order: bias, repetition penalty, bans, minimum length.
`constrained` drops what an outside constraint forbids. `distribution` then applies temperature and the cuts, top-k,
top-p, min-p, typical, epsilon, each to what the one before it has left. `choose` does all of it and takes a token.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.config import SamplingConfig
from research.generation.thresholds import smallest_set

MASK_BITS = 32  # of one word of a constraint's mask


class Choice(NamedTuple):
    """A token for each row, and what it was chosen from."""

    token_B: jax.Array  # int32
    distribution_BV: jax.Array  # logits that the token was drawn by; those of a greedy choice are not cut
    removed_bits_B: jax.Array  # -log2 of the probability that the constraint left, 0 without one


def choose(
    config: SamplingConfig,
    logits_BV: jax.Array,
    keys_B: jax.Array,
    present_BV: jax.Array | None = None,
    end_ids: tuple[int, ...] = (),
    step: jax.Array | int = 0,
    mask_BW: jax.Array | None = None,
) -> Choice:
    """The next token of each row.

    keys_B: typed keys, one a row, so that a row's draw is its own. present_BV: true at tokens of the prompt or written
    since, for the repetition penalty. step: tokens written so far, for the minimum length. mask_BW: packed as
    `constraint.Constraint` says, true where a row may write a token next.
    """
    logits_BV = transformed(config, logits_BV, present_BV, end_ids, step)
    logits_BV, removed_bits_B = constrained(logits_BV, mask_BW)
    if config.greedy:
        return Choice(likeliest(logits_BV), logits_BV, removed_bits_B)
    logits_BV = distribution(config, logits_BV)
    return Choice(draw(logits_BV, keys_B), logits_BV, removed_bits_B)


def transformed(
    config: SamplingConfig,
    logits_BV: jax.Array,
    present_BV: jax.Array | None,
    end_ids: tuple[int, ...],
    step: jax.Array | int,
) -> jax.Array:
    """Logits after bias, repetition penalty, bans and minimum length: -inf where a token is excluded."""
    if config.bias:
        logits_BV = biased(logits_BV, config.bias)
    if config.repetition_penalty != 1:
        logits_BV = penalised(logits_BV, present_BV, config.repetition_penalty)
    if config.banned:
        logits_BV = without(logits_BV, config.banned)
    if config.min_new_tokens and end_ids:
        logits_BV = jnp.where(step < config.min_new_tokens, without(logits_BV, end_ids), logits_BV)
    return logits_BV


def constrained(logits_BV: jax.Array, mask_BW: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Logits with -inf where the mask is clear, and -log2 of the probability that is left (B,): inf if none is."""
    if mask_BW is None:
        return logits_BV, jnp.zeros(len(logits_BV), logits_BV.dtype)
    kept_BV = jnp.where(unpacked(mask_BW, logits_BV.shape[1]), logits_BV, -jnp.inf)
    removed_nats_B = jax.nn.logsumexp(logits_BV, axis=1) - jax.nn.logsumexp(kept_BV, axis=1)
    return kept_BV, jnp.maximum(removed_nats_B, 0) / math.log(2)  # sums may differ by rounding where all is kept


def distribution(config: SamplingConfig, logits_BV: jax.Array) -> jax.Array:
    """Logits at the config's temperature, -inf where a cut drops a token; one at least is left in each row."""
    logits_BV = logits_BV / config.temperature
    for name, cut in CUTS.items():
        if (value := getattr(config, name)) is not None:
            logits_BV = jnp.where(cut(logits_BV, value), logits_BV, -jnp.inf)
    return logits_BV


def biased(logits_BV: jax.Array, bias: tuple[tuple[int, float], ...]) -> jax.Array:
    """Adds to the logit of each token that `bias` names."""
    added_V = np.zeros(logits_BV.shape[1], logits_BV.dtype)
    for token, value in bias:
        added_V[token] = value
    return logits_BV + added_V[None]


def penalised(logits_BV: jax.Array, present_BV: jax.Array, penalty: float) -> jax.Array:
    """Divides positive logits of tokens that are present, multiplies negative ones (Keskar 2019, section 4.1)."""
    less_BV = jnp.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty)
    return jnp.where(present_BV, less_BV, logits_BV)


def without(logits_BV: jax.Array, tokens: tuple[int, ...]) -> jax.Array:
    """-inf at the tokens."""
    excluded_V = np.zeros(logits_BV.shape[1], bool)
    excluded_V[list(tokens)] = True
    return jnp.where(excluded_V[None], -jnp.inf, logits_BV)


def in_top_k(logits_BV: jax.Array, k: int) -> jax.Array:
    """True at the k likeliest tokens and at those that tie with the k-th."""
    largest_BK, _ = jax.lax.top_k(logits_BV, min(k, logits_BV.shape[1]))
    return logits_BV >= largest_BK[:, -1:]


def in_top_p(logits_BV: jax.Array, share: float) -> jax.Array:
    """True at the likeliest tokens that together have the share; tokens that tie with the last of them are kept."""
    return smallest_set(logits_BV, jax.nn.softmax(logits_BV, axis=1), share)


def above_min_p(logits_BV: jax.Array, share: float) -> jax.Array:
    """True at tokens at least `share` as likely as the likeliest."""
    p_BV = jax.nn.softmax(logits_BV, axis=1)
    return p_BV >= share * jnp.max(p_BV, axis=1, keepdims=True)


def typical(logits_BV: jax.Array, share: float) -> jax.Array:
    """True at the tokens of information nearest to the entropy that together have the share (Meister 2023)."""
    log_p_BV = jax.nn.log_softmax(logits_BV, axis=1)
    p_BV = jnp.exp(log_p_BV)
    entropy_B1 = -jnp.sum(jnp.where(p_BV > 0, log_p_BV * p_BV, 0), axis=1, keepdims=True)
    return smallest_set(-jnp.abs(-log_p_BV - entropy_B1), p_BV, share)


def above_epsilon(logits_BV: jax.Array, least: float) -> jax.Array:
    """True at tokens of at least this probability, and at the likeliest."""
    p_BV = jax.nn.softmax(logits_BV, axis=1)
    return (p_BV >= least) | (logits_BV >= jnp.max(logits_BV, axis=1, keepdims=True))


# In the order in which they are applied.
CUTS = {"top_k": in_top_k, "top_p": in_top_p, "min_p": above_min_p, "typical_p": typical, "epsilon": above_epsilon}


def likeliest(logits_BV: jax.Array) -> jax.Array:
    """(B,) int32: the largest logit's token, the first of several.

    By groups of tokens: XLA's argmax on a CPU takes several times as long as a maximum, and here reads few numbers.
    """
    grouped_BCW = _grouped(logits_BV)
    group_B = jnp.argmax(jnp.max(grouped_BCW, axis=2), axis=1)
    within_B = jnp.argmax(_one_group(grouped_BCW, group_B), axis=1)
    return (group_B * grouped_BCW.shape[2] + within_B).astype(jnp.int32)


def draw(logits_BV: jax.Array, keys_B: jax.Array) -> jax.Array:
    """(B,) int32: a token drawn in proportion to exp(logit), by each row's own key; never one of logit -inf.

    A group of tokens is drawn by its sum, then one of its tokens: exact, with random numbers for about two square roots
    of the vocabulary, where the Gumbel trick asks for one of each token.
    """
    grouped_BCW = _grouped(logits_BV)
    key_pairs_B2 = jax.vmap(jax.random.split)(keys_B)
    categorical = jax.vmap(jax.random.categorical)
    group_B = categorical(key_pairs_B2[:, 0], jax.nn.logsumexp(grouped_BCW, axis=2))
    within_B = categorical(key_pairs_B2[:, 1], _one_group(grouped_BCW, group_B))
    return (group_B * grouped_BCW.shape[2] + within_B).astype(jnp.int32)


def unpacked(mask_BW: jax.Array, vocab_size: int) -> jax.Array:
    """(B, V) bool: bit v % 32 of word v // 32 of a row, (B, ceil(V / 32)) uint32."""
    bits_BW32 = (mask_BW[:, :, None] >> jnp.arange(MASK_BITS, dtype=jnp.uint32)[None, None]) & 1
    return bits_BW32.reshape(len(mask_BW), -1)[:, :vocab_size].astype(bool)


def _grouped(logits_BV: jax.Array) -> jax.Array:
    """(B, groups, tokens of a group), about as many of each; -inf beyond the vocabulary."""
    V = logits_BV.shape[1]
    of_group = math.isqrt(V - 1) + 1
    groups = -(-V // of_group)
    padded_BV = jnp.pad(logits_BV, ((0, 0), (0, groups * of_group - V)), constant_values=-jnp.inf)
    return padded_BV.reshape(-1, groups, of_group)


def _one_group(grouped_BCW: jax.Array, group_B: jax.Array) -> jax.Array:
    return jnp.take_along_axis(grouped_BCW, group_B[:, None, None], axis=1)[:, 0]

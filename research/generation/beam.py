"""Beam search: the continuations of highest log-probability, found by extending several at a time.

It is that of Hugging Face's `generate`, in whose order everything happens: of all extensions of a prompt's beams the
best few are looked at; those that end are put among the finished ones, their score divided by a power of their length;
the best that go on are the next beams.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.config import ModelConfig, check
from research.generation.decode import check_prompts
from research.generation.rows import repeated, taken
from research.models import language_model

FAR = -1e9  # what Hugging Face adds to the score of what may not be chosen


@dataclass(frozen=True)
class BeamSearch:
    """What is asked of a search. Each value of it, for a model and shapes, is a compiled program of its own."""

    tokens: int  # that each continuation has at most
    beams: int
    end_ids: tuple[int, ...] = ()
    length_penalty: float = 1.0  # a finished score is divided by tokens^this: above 0 favours long texts
    # When a prompt's search is over. True: with as many finished as beams. False: once the best beam at its length is
    # no better than the worst of those. "never": once it could not become so at any length (for a penalty above 0).
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self):
        check(self.tokens >= 1, "tokens", self.tokens, "must be at least 1", "ask for a token")
        check(self.beams >= 1, "beams", self.beams, "must be at least 1", "use 4")
        known = self.early_stopping in (True, False, "never")
        check(known, "early_stopping", self.early_stopping, "must be True, False or 'never'", "use one of them")

    @property
    def extensions(self) -> int:
        """How many are looked at: enough that as many as there are beams go on, whichever of them end."""
        return self.beams * max(2, 1 + len(self.end_ids))


class Beams(NamedTuple):
    """Continuations of each prompt, the best first."""

    tokens_PKT: np.ndarray  # int32, 0 after the end
    lengths_PK: np.ndarray  # tokens, an end token among them; 0 where fewer were finished than there are beams
    scores_PK: np.ndarray  # summed log-probability in nats over tokens^length_penalty


class _Texts(NamedTuple):
    tokens_PKT: jax.Array
    lengths_PK: jax.Array
    scores_PK: jax.Array


class _Carry(NamedTuple):
    states: Any  # after reading all but the last token of each beam
    beams: _Texts
    finished: _Texts
    is_finished_PK: jax.Array
    is_open_P: jax.Array  # whether a beam may still come among the finished ones
    all_ended: jax.Array  # no extension of the last step goes on
    step: jax.Array


def beam_search(
    config: ModelConfig,
    params: Any,
    search: BeamSearch,
    prompt_PL: np.ndarray,
    mask_PL: np.ndarray | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> Beams:
    """The best continuations of prompts (P, L) int32, padded on the left where mask_PL is false.

    sources: as of language_model.hidden, for an encoder-decoder, whose prompts are the first tokens of the targets.
    Raises ConfigError for prompts and tokens beyond a learned position table, an empty prompt, or more extensions than
    there are.
    """
    check_prompts(config, search.tokens, prompt_PL, mask_PL, sources)
    most = config.vocab_size // max(2, 1 + len(search.end_ids))
    check(search.beams <= most, "beams", search.beams, f"must be at most {most} for this vocabulary", "use fewer")
    found = _search(config, search, params, prompt_PL, mask_PL, sources)
    return Beams(*map(np.asarray, found))


@partial(jax.jit, static_argnums=(0, 1))
def _search(
    config: ModelConfig, search: BeamSearch, params: Any, prompt_PL: jax.Array, mask_PL: Any, sources: Any
) -> _Texts:
    (P, L), K, T = prompt_PL.shape, search.beams, search.tokens
    states = language_model.init_states(config, P, L + T)
    logits_PV, states = language_model.decode_step(config, params, prompt_PL, states, mask_PL, sources)
    none = _Texts(jnp.zeros((P, K, T), jnp.int32), jnp.zeros((P, K), jnp.int32), jnp.full((P, K), FAR, logits_PV.dtype))
    start = _Carry(
        states=repeated(config, states, K),
        beams=none._replace(scores_PK=none.scores_PK.at[:, 0].set(0)),  # all are the prompt: one of them is extended
        finished=none,
        is_finished_PK=jnp.zeros((P, K), bool),
        is_open_P=jnp.ones(P, bool),
        all_ended=jnp.zeros((), bool),
        step=jnp.zeros((), jnp.int32),
    )

    def goes_on(carry: _Carry) -> jax.Array:
        enough = jnp.all(carry.is_finished_PK) if search.early_stopping is True else False
        return jnp.any(carry.is_open_P) & ~carry.all_ended & ~jnp.asarray(enough)

    def step(carry: _Carry) -> _Carry:
        last_B = jax.lax.dynamic_index_in_dim(carry.beams.tokens_PKT, carry.step - 1, axis=2).reshape(P * K, 1)
        logits_BV, states = language_model.decode_step(config, params, last_B, carry.states)
        return _extended(config, search, carry._replace(states=states), logits_BV.reshape(P, K, -1))

    first = _extended(config, search, start, jnp.repeat(logits_PV[:, None], K, axis=1))
    finished = jax.lax.while_loop(goes_on, step, first).finished
    is_one_PK = finished.lengths_PK > 0
    return finished._replace(tokens_PKT=jnp.where(is_one_PK[..., None], finished.tokens_PKT, 0))


def _extended(config: ModelConfig, search: BeamSearch, carry: _Carry, logits_PKV: jax.Array) -> _Carry:
    """The carry with a token more in every beam, and with what ended among the finished texts."""
    P, K, V = logits_PKV.shape
    length, penalty = carry.step + 1, search.length_penalty
    scores_PKV = jax.nn.log_softmax(logits_PKV, axis=-1) + carry.beams.scores_PK[..., None]
    scores_PE, index_PE = jax.lax.top_k(scores_PKV.reshape(P, K * V), search.extensions)
    from_PE, token_PE = index_PE // V, index_PE % V
    tokens_PET = jnp.take_along_axis(carry.beams.tokens_PKT, from_PE[..., None], axis=1)
    tokens_PET = jax.lax.dynamic_update_index_in_dim(tokens_PET, token_PE, carry.step, axis=2)
    extended = _Texts(tokens_PET, jnp.full_like(token_PE, length), scores_PE)
    ends_PE = jnp.isin(token_PE, np.array(search.end_ids, np.int32)) | (length == search.tokens)

    beams, chosen_PK = _best(extended._replace(scores_PK=jnp.where(ends_PE, scores_PE + FAR, scores_PE)), K)
    from_PK = jnp.take_along_axis(from_PE, chosen_PK, axis=1)
    states = taken(config, carry.states, (jnp.arange(P)[:, None] * K + from_PK).reshape(-1))

    # Those beyond as many as there are beams are only there to go on.
    newly_PE = ends_PE & (jnp.arange(search.extensions) < K)[None]
    is_closed_P = ~carry.is_open_P
    if search.early_stopping is True:
        is_closed_P |= jnp.all(carry.is_finished_PK, axis=1)
    final_PE = scores_PE / length.astype(scores_PE.dtype) ** penalty
    final_PE = final_PE + FAR * is_closed_P[:, None] + FAR * ~newly_PE
    both = jax.tree.map(
        lambda old, new: jnp.concatenate([old, new], axis=1), carry.finished, extended._replace(scores_PK=final_PE)
    )
    finished, kept_PK = _best(both, K)
    is_finished_PK = jnp.take_along_axis(jnp.concatenate([carry.is_finished_PK, newly_PE], axis=1), kept_PK, axis=1)
    finished = finished._replace(lengths_PK=jnp.where(is_finished_PK, finished.lengths_PK, 0))

    at_best = search.tokens if search.early_stopping == "never" and penalty > 0 else length
    best_P = beams.scores_PK[:, 0] / jnp.asarray(at_best, scores_PE.dtype) ** penalty
    worst_P = jnp.where(is_finished_PK.all(axis=1), finished.scores_PK[:, -1], FAR)
    is_open_P = carry.is_open_P & (best_P > worst_P)
    return _Carry(states, beams, finished, is_finished_PK, is_open_P, jnp.all(ends_PE), length)


def _best(texts: _Texts, count: int) -> tuple[_Texts, jax.Array]:
    """The `count` of highest score in each row, highest first, and where they stood."""
    scores_PK, at_PK = jax.lax.top_k(texts.scores_PK, count)
    tokens_PKT = jnp.take_along_axis(texts.tokens_PKT, at_PK[..., None], axis=1)
    return _Texts(tokens_PKT, jnp.take_along_axis(texts.lengths_PK, at_PK, axis=1), scores_PK), at_PK

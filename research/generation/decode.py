"""Text out of a model: the prompt in one call, then a loop on the decode state that ends when every row has ended.

`decode` runs two compiled programs for each (model, Decoding, shapes): `_begin` reads the prompts and writes the first
token, `_go_on` writes further ones, up to a step that it is told, on states that it updates in place. Where nothing on
the host has to look at the tokens it is called once; to stream, to look for stop strings or to ask a constraint for its
masks, once for every few steps, or for each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from research.config import ModelConfig, check
from research.generation.choice import choose
from research.generation.constraint import Constraint
from research.generation.host import Host, Seen
from research.generation.record import Decoding, Record, Written
from research.generation.rows import repeated, row_keys
from research.generation.stopping import StopStrings
from research.models import language_model


class Carry(NamedTuple):
    """All that goes from one step to the next."""

    states: Any  # after reading all but the last token
    last_B: jax.Array
    running_B: jax.Array
    step: jax.Array  # tokens written by rows that still run
    present_BV: jax.Array | None  # tokens of the prompt and written, if something asks
    record: Record


def padded(prompts: Sequence[Sequence[int]], multiple: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    """Prompts as one array (P, L) int32, padded on the left, and true at their tokens (None where nothing is padded).

    L is a multiple of `multiple`, so that prompts of many lengths share few compiled programs.
    """
    longest = max(map(len, prompts))
    L = -(-longest // multiple) * multiple
    tokens_PL, mask_PL = np.zeros((len(prompts), L), np.int32), np.zeros((len(prompts), L), bool)
    for row, prompt in enumerate(prompts):
        tokens_PL[row, L - len(prompt) :] = prompt
        mask_PL[row, L - len(prompt) :] = True
    return tokens_PL, None if mask_PL.all() else mask_PL


def decode(
    config: ModelConfig,
    params: Any,
    decoding: Decoding,
    prompt_PL: np.ndarray,
    mask_PL: np.ndarray | None = None,
    *,
    samples: int = 1,
    seed: int = 0,
    numbers_P: Sequence[int] | None = None,
    first_sample: int = 0,
    sources: tuple[jax.Array, jax.Array] | None = None,
    stop_strings: StopStrings | None = None,
    constraint: Constraint | None = None,
    steps: int | None = None,
    watch: Callable[[Written], None] | None = None,
) -> Written:
    """Continue each prompt `samples` times; a prompt is read once, whatever their number.

    mask_PL: false at padding, which stands left of a prompt's tokens. A row's draws follow from (seed, number of its
    prompt, number of its sample) alone: numbers_P are the prompts' in a larger job (by default 0, 1, ...), first_sample
    is the first sample's. sources: as of language_model.hidden, for an encoder-decoder, whose prompts are the first
    tokens of the targets. constraint: of the B = P * samples rows. steps: how many go by between two looks of the host,
    which `watch` is given; by default as many as stop strings and constraint allow.

    Raises ConfigError if prompt and tokens are more than a learned position table has rows, DeadEndError if the
    constraint leaves a row nothing to write.
    """
    P = len(prompt_PL)
    _check(config, decoding, prompt_PL, mask_PL, samples, sources)
    numbers_P = range(P) if numbers_P is None else numbers_P
    keys_B = row_keys(seed, numbers_P, range(first_sample, first_sample + samples))
    host = Host(decoding, P * samples, stop_strings, constraint)
    carry, seen = _begin(
        config, decoding, samples, params, prompt_PL, mask_PL, sources, keys_B, host.masks(np.ones(P * samples, bool))
    )
    steps = host.steps(steps)
    while True:
        ended_B = host.read(seen)
        if watch is not None:
            watch(host.written(carry.record))
        running_B = np.asarray(seen.running_B) & ~ended_B
        step = int(seen.step)
        if step == decoding.tokens or not running_B.any():
            return host.written(carry.record)
        if ended_B.any():
            carry = carry._replace(running_B=jnp.asarray(running_B))
        until = min(step + steps, decoding.tokens)
        carry, seen = _go_on(config, decoding, params, carry, keys_B, until, host.masks(running_B))


def _check(
    config: ModelConfig, decoding: Decoding, prompt_PL: np.ndarray, mask_PL: Any, samples: int, sources: Any
) -> None:
    check(samples >= 1, "samples", samples, "must be at least 1", "ask for one")
    check_prompts(config, decoding.tokens, prompt_PL, mask_PL, sources)
    decoding.sampling.check_vocabulary(config.vocab_size)
    if decoding.logprobs is not None:
        check(
            decoding.logprobs.best <= config.vocab_size,
            "logprobs.best",
            decoding.logprobs.best,
            f"must be at most the {config.vocab_size} ids of the vocabulary",
            "ask for fewer",
        )


def check_prompts(config: ModelConfig, tokens: int, prompt_PL: np.ndarray, mask_PL: Any, sources: Any) -> None:
    """Raise ConfigError unless the model can read these prompts and write `tokens` after each."""
    real = np.full(len(prompt_PL), prompt_PL.shape[1]) if mask_PL is None else np.asarray(mask_PL).sum(axis=1)
    shortest, longest = (int(real.min()), int(real.max())) if real.size else (0, 0)
    check(shortest >= 1, "prompt", "", "must hold a token, after which the next is written", "begin with an end token")
    check(
        config.max_positions is None or longest + tokens <= config.max_positions,
        "model.max_positions",
        config.max_positions,
        f"must be at least the {longest + tokens} tokens of prompt and answer",
        "ask for fewer tokens, or shorten the prompt",
    )
    check(
        (config.encoder is None) == (sources is None),
        "sources",
        None if sources is None else "given",
        f"must be given for an encoder-decoder alone; the pattern is {config.pattern!r}",
        "give them, or leave them out",
    )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _begin(
    config: ModelConfig,
    decoding: Decoding,
    samples: int,
    params: Any,
    prompt_PL: jax.Array,
    mask_PL: jax.Array | None,
    sources: tuple[jax.Array, jax.Array] | None,
    keys_B: jax.Array,
    mask_BW: jax.Array | None,
) -> tuple[Carry, Seen]:
    """Read the prompts, repeat what was read for each sample, write the first token."""
    P, L = prompt_PL.shape
    B, T, V = P * samples, decoding.tokens, config.vocab_size
    states = language_model.init_states(config, P, L + T)
    logits_PV, states = language_model.decode_step(config, params, prompt_PL, states, mask_PL, sources)
    present_BV = None
    if decoding.sampling.repetition_penalty != 1:
        counted_PL = jnp.ones((P, L), bool) if mask_PL is None else mask_PL
        present_PV = jnp.zeros((P, V), bool).at[jnp.arange(P)[:, None], prompt_PL].max(counted_PL)
        present_BV = jnp.repeat(present_PV, samples, axis=0)
    asked = decoding.logprobs
    best_shape = None if asked is None or not asked.best else (B, T, asked.best)
    record = Record(
        tokens_BT=jnp.zeros((B, T), jnp.int32),
        lengths_B=jnp.zeros(B, jnp.int32),
        removed_bits_BT=None if mask_BW is None else jnp.zeros((B, T), logits_PV.dtype),
        logprobs_BT=None if asked is None else jnp.zeros((B, T), logits_PV.dtype),
        best_BTN=None if best_shape is None else jnp.zeros(best_shape, jnp.int32),
        best_logprobs_BTN=None if best_shape is None else jnp.zeros(best_shape, logits_PV.dtype),
    )
    start = Carry(
        states=repeated(config, states, samples),
        last_B=jnp.zeros(B, jnp.int32),
        running_B=jnp.ones(B, bool),
        step=jnp.zeros((), jnp.int32),
        present_BV=present_BV,
        record=record,
    )
    carry = _written(decoding, start, jnp.repeat(logits_PV, samples, axis=0), keys_B, mask_BW)
    return carry, _seen(carry)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _go_on(
    config: ModelConfig,
    decoding: Decoding,
    params: Any,
    carry: Carry,
    keys_B: jax.Array,
    until: jax.Array,
    mask_BW: jax.Array | None,
) -> tuple[Carry, Seen]:
    """Write until `until` tokens are written or every row has ended; the carry's arrays are used again."""

    def more(carry: Carry) -> jax.Array:
        return (carry.step < until) & jnp.any(carry.running_B)

    def step(carry: Carry) -> Carry:
        logits_BV, states = language_model.decode_step(config, params, carry.last_B[:, None], carry.states)
        return _written(decoding, carry._replace(states=states), logits_BV, keys_B, mask_BW)

    carry = jax.lax.while_loop(more, step, carry)
    return carry, _seen(carry)


def _seen(carry: Carry) -> Seen:
    return Seen(carry.record.tokens_BT, carry.record.lengths_B, carry.running_B, carry.step)


def _written(
    decoding: Decoding, carry: Carry, logits_BV: jax.Array, keys_B: jax.Array, mask_BW: jax.Array | None
) -> Carry:
    """The carry with one token more in every row that runs."""
    step, running_B, sampling = carry.step, carry.running_B, decoding.sampling
    step_keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, step)
    choice = choose(sampling, logits_BV, step_keys_B, carry.present_BV, decoding.end_ids, step, mask_BW)
    token_B = jnp.where(running_B, choice.token_B, 0)
    added: dict[str, jax.Array] = {"tokens_BT": token_B}
    if mask_BW is not None:
        added["removed_bits_BT"] = jnp.where(running_B, choice.removed_bits_B, 0)
    if decoding.logprobs is not None:
        of_BV = logits_BV if decoding.logprobs.of == "model" else choice.distribution_BV
        added |= log_probabilities(of_BV, token_B, decoding.logprobs.best)
    record = carry.record._asdict() | {
        name: jax.lax.dynamic_update_index_in_dim(getattr(carry.record, name), value, step, axis=1)
        for name, value in added.items()
    }
    record["lengths_B"] += running_B
    present_BV = carry.present_BV
    if present_BV is not None:
        present_BV = present_BV.at[jnp.arange(len(token_B)), token_B].max(running_B)
    ended_B = jnp.isin(token_B, np.array(decoding.end_ids, np.int32))
    return Carry(carry.states, token_B, running_B & ~ended_B, step + 1, present_BV, Record(**record))


def log_probabilities(logits_BV: jax.Array, token_B: jax.Array, best: int) -> dict[str, jax.Array]:
    """Under softmax of the logits, in nats: of the token, and the `best` likeliest, named as in Record."""
    total_B1 = jax.nn.logsumexp(logits_BV, axis=1, keepdims=True)
    found = {"logprobs_BT": (jnp.take_along_axis(logits_BV, token_B[:, None], axis=1) - total_B1)[:, 0]}
    if best:
        best_BN, tokens_BN = jax.lax.top_k(logits_BV, best)
        found |= {"best_BTN": tokens_BN, "best_logprobs_BTN": best_BN - total_B1}
    return found

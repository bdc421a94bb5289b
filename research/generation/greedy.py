"""Greedy decoding: the likeliest next token, again and again, in one compiled program."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from research.config import ModelConfig, check
from research.models import language_model


def greedy(
    config: ModelConfig,
    params: Any,
    prompt_BL: jax.Array,
    new_tokens: int,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """The `new_tokens` tokens (B, new_tokens) int32 that follow each prompt, each the argmax of the logits before it.

    The prompt is read in one call, then the decode state goes through a scan: one program for each (config, shape of
    the prompt, new_tokens). mask_BL: false at padding on the left of prompts that are shorter than others. sources:
    what an encoder-decoder reads, as in language_model.hidden; its prompts are the first tokens of the targets.

    Raises ConfigError if prompt and new tokens are more than a learned position table has rows.
    """
    check(new_tokens >= 1, "new_tokens", new_tokens, "must be at least 1", "ask for a token")
    length = prompt_BL.shape[1] + new_tokens
    check(
        config.max_positions is None or length <= config.max_positions,
        "model.max_positions",
        config.max_positions,
        f"must be at least the {length} tokens of prompt and answer",
        "ask for fewer tokens, or shorten the prompt",
    )
    return _decode(config, new_tokens, params, prompt_BL, mask_BL, sources)


@partial(jax.jit, static_argnums=(0, 1))
def _decode(
    config: ModelConfig, new_tokens: int, params: Any, prompt_BL: jax.Array, mask_BL: Any, sources: Any
) -> jax.Array:
    B, L = prompt_BL.shape
    states = language_model.init_states(config, B, L + new_tokens)
    logits_BV, states = language_model.decode_step(config, params, prompt_BL, states, mask_BL, sources)

    def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], jax.Array]:
        token_B, states = carry
        logits_BV, states = language_model.decode_step(config, params, token_B[:, None], states)
        return (_likeliest(logits_BV), states), token_B

    # The last token is given out and never read.
    (last_B, _), tokens_LB = jax.lax.scan(step, (_likeliest(logits_BV), states), length=new_tokens - 1)
    return jnp.concatenate([tokens_LB, last_B[None]]).T


def _likeliest(logits_BV: jax.Array) -> jax.Array:
    return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)

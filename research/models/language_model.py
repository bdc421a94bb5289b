"""A decoder-only language model: embedding, a stack of residual blocks that repeats a pattern, norm, head.

The stack is one `nn.scan` over periods of the pattern (`scan_layers`) or written out; both are the same function. Use
it through `init`, `hidden`, `logits` and `decode_step` on plain pytrees.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from research.config import ModelConfig
from research.models.blocks import layer_mixers
from research.models.layers import STACKED_AXIS, Normal, RMSNorm, draw, parameter
from research.sharding import constrain

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Period(nn.Module):
    """One repetition of the pattern: x + mixer(norm(x)), then x + channel_mixer(norm(x)), for each of its layers."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BLD: jax.Array, states: tuple | None) -> tuple[jax.Array, tuple | None]:
        new_states = []
        for i, (mixer, channel_mixer) in enumerate(layer_mixers(self.config)):
            normed_BLD = RMSNorm(self.config.norm_epsilon, name=f"layer{i}_mixer_norm")(x_BLD)
            state = None if states is None else states[i]
            mixed_BLD, state = mixer.module(self.config, name=f"layer{i}_mixer")(normed_BLD, state)
            x_BLD = constrain(x_BLD + mixed_BLD, "batch length activation")
            new_states.append(state)
            if channel_mixer is not None:
                normed_BLD = RMSNorm(self.config.norm_epsilon, name=f"layer{i}_channel_norm")(x_BLD)
                mixed_BLD = channel_mixer.module(self.config, name=f"layer{i}_channel")(normed_BLD)
                x_BLD = constrain(x_BLD + mixed_BLD, "batch length activation")
        return x_BLD, None if states is None else tuple(new_states)


class LanguageModel(nn.Module):
    """Tokens (B, L) int32 to final hidden states (B, L, D) in the compute dtype, and the head's matrix (D, V)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens_BL: jax.Array, states: Any = None) -> tuple[jax.Array, jax.Array, Any]:
        cfg = self.config
        V, D = cfg.vocab_size, cfg.width
        table_VD = parameter(self, "embedding", (V, D), "vocab table_width", Normal(D**-0.5), "embedding")
        x_BLD = jnp.take(table_VD.astype(cfg.compute_dtype), tokens_BL, axis=0)
        x_BLD = constrain(x_BLD, "batch length activation")
        period = Period if cfg.remat == "none" else nn.remat(Period, policy=REMAT_POLICIES[cfg.remat])
        repeats = cfg.depth // len(cfg.layers)
        if cfg.scan_layers:
            scanned = nn.scan(
                period,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=0,
                out_axes=0,
                length=repeats,
                metadata_params={nn.PARTITION_NAME: STACKED_AXIS},
            )
            x_BLD, states = scanned(cfg, name="periods")(x_BLD, states)
        else:
            new_states = []
            for i in range(repeats):
                x_BLD, state = period(cfg, name=f"period{i}")(x_BLD, None if states is None else states[i])
                new_states.append(state)
            states = None if states is None else new_states
        x_BLD = RMSNorm(cfg.norm_epsilon, name="final_norm")(x_BLD)
        if cfg.tied_embeddings:
            return x_BLD, table_VD.T, states
        return x_BLD, parameter(self, "head", (D, V), "width vocab", Normal(D**-0.5), "output"), states


def abstract(config: ModelConfig) -> Any:
    """The tree of `layers.Parameter`s, whose values are shapes and dtypes; nothing is allocated."""
    model = LanguageModel(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"])


def init(config: ModelConfig, key: jax.Array, shardings: Any = None) -> Any:
    """Float32 parameters as a plain pytree, the same numbers for every placement by `shardings`."""
    return draw(abstract(config), key, shardings)


def unbox(boxed: Any) -> Any:
    """The abstract tree without its boxes: a plain pytree of shapes and dtypes."""
    return meta.unbox(boxed)


def hidden(config: ModelConfig, params: Any, tokens_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(x_BLD, head_DV): final hidden states in the compute dtype and the float32 head; the loss joins them."""
    x_BLD, head_DV, _ = LanguageModel(config).apply({"params": params}, tokens_BL)
    return x_BLD, head_DV


def logits(config: ModelConfig, params: Any, tokens_BL: jax.Array) -> jax.Array:
    """Next-token logits (B, L, V), float32."""
    x_BLD, head_DV = hidden(config, params, tokens_BL)
    return _project(x_BLD, head_DV)


def init_states(config: ModelConfig, batch: int, max_length: int) -> Any:
    """Empty decode states of every layer for sequences of at most `max_length` tokens."""
    period = tuple(mixer.init_state(config, batch, max_length) for mixer, _ in layer_mixers(config))
    repeats = config.depth // len(config.layers)
    if config.scan_layers:
        return jax.tree.map(lambda leaf: jnp.repeat(leaf[None], repeats, axis=0), period)
    return [period] * repeats


def decode_step(config: ModelConfig, params: Any, tokens_BL: jax.Array, states: Any) -> tuple[jax.Array, Any]:
    """Logits (B, V) after reading tokens_BL (one token, or a whole prompt) from `states`, and the states after it.

    The caller keeps the total within the `max_length` of `init_states`: there is one slot a token.
    """
    x_BLD, head_DV, states = LanguageModel(config).apply({"params": params}, tokens_BL, states)
    return _project(x_BLD[:, -1:], head_DV)[:, 0], states


def _project(x_BLD: jax.Array, head_DV: jax.Array) -> jax.Array:
    return jnp.einsum("bld,dv->blv", x_BLD, head_DV.astype(x_BLD.dtype), preferred_element_type=jnp.float32)

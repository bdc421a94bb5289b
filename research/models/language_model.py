"""A decoder-only language model: embedding, a stack of residual blocks that repeats a pattern, norm, head.

The stack is one `nn.scan` over periods of the pattern (`scan_layers`) or written out; both are the same function. Use
it through `init`, `hidden`, `logits` and `decode_step` on plain pytrees.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from research.model_config import Layer, ModelConfig
from research.models.blocks import mixers
from research.models.layers import STACKED_AXIS, Normal, Shared, draw, norm, parameter
from research.sharding import constrain

REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Layers(nn.Module):
    """Residual layers in a row: x + mixer(norm(x)) for each mixer of each, or as norm_placement and the like say."""

    config: ModelConfig
    layers: tuple[Layer, ...]
    first: int  # number of the first of them in the stack

    @nn.compact
    def __call__(self, stream: tuple[jax.Array, Shared], states: tuple | None) -> tuple[tuple, tuple | None]:
        cfg, (x_BLD, shared), new_states = self.config, stream, []
        for i, layer in enumerate(self.layers):
            residual_BLD, layer_states = x_BLD, []
            for j, (part, mixer) in enumerate(zip(("mixer", "channel"), mixers(layer, cfg))):
                module = mixer.module(cfg, self.first + i, name=f"layer{i}_{part}")
                layer_norm = norm(cfg, name=f"layer{i}_{part}_norm")
                read_BLD = residual_BLD if cfg.parallel_mixers else x_BLD
                state = None if states is None else states[i][j]
                if cfg.norm_placement == "pre":
                    mixed_BLD, state, shared = module(layer_norm(read_BLD), state, shared)
                else:
                    mixed_BLD, state, shared = module(read_BLD, state, shared)
                    mixed_BLD = layer_norm(mixed_BLD)
                x_BLD = constrain(x_BLD + mixed_BLD, "batch length activation")
                layer_states.append(state)
            new_states.append(tuple(layer_states))
        return (x_BLD, shared), None if states is None else tuple(new_states)


class LanguageModel(nn.Module):
    """Tokens (B, L) int32 to final hidden states (B, L, D) in the compute dtype, and the head's matrix (D, V).

    states: {"prefix": of each prefix layer, "periods": of each repetition (stacked when scanned), "read": tokens read}.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, tokens_BL: jax.Array, states: Any = None, mask_BL: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, Any]:
        cfg = self.config
        V, D = cfg.vocab_size, cfg.width
        table_VD = parameter(self, "embedding", (V, D), "vocab table_width", Normal(D**-0.5), "embedding")
        x_BLD = jnp.take(table_VD.astype(cfg.compute_dtype), tokens_BL, axis=0)
        if cfg.max_positions is not None:
            x_BLD += self._positions(tokens_BL, states, mask_BL)
        if cfg.embedding_norm:
            x_BLD = norm(cfg, name="embedding_norm")(x_BLD)
        x_BLD = constrain(x_BLD, "batch length activation")
        (x_BLD, _), states = self._stack((x_BLD, Shared(mask_BL=mask_BL)), states, tokens_BL.shape[1])
        x_BLD = norm(cfg, name="final_norm")(x_BLD)
        if cfg.tied_embeddings:
            return x_BLD, table_VD.T, states
        return x_BLD, parameter(self, "head", (D, V), "width vocab", Normal(D**-0.5), "output"), states

    def _positions(self, tokens_BL: jax.Array, states: Any, mask_BL: jax.Array | None) -> jax.Array:
        """Rows of the learned position table, counted from the first real token."""
        cfg = self.config
        shape = (cfg.max_positions, cfg.width)
        table_LD = parameter(self, "positions", shape, "positions table_width", Normal(0.01), "embedding")
        if mask_BL is None:
            numbers_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1])[None], tokens_BL.shape)
        else:
            numbers_BL = jnp.maximum(jnp.cumsum(mask_BL, axis=1) - 1, 0)
        if states is not None:
            numbers_BL += states["read"][:, None]
        return jnp.take(table_LD.astype(cfg.compute_dtype), numbers_BL, axis=0)

    def _stack(self, stream: tuple, states: Any, length: int) -> tuple[tuple, Any]:
        """The prefix, then the periods, scanned or written out."""
        cfg = self.config
        layers = Layers if cfg.remat == "none" else nn.remat(Layers, policy=REMAT_POLICIES[cfg.remat])
        of_prefix, of_periods = (None, None) if states is None else (states["prefix"], states["periods"])
        if cfg.prefix:
            stream, of_prefix = layers(cfg, cfg.prefix, 0, name="prefix")(stream, of_prefix)
        first, step = len(cfg.prefix), len(cfg.period)
        if cfg.scan_layers:
            scanned = nn.scan(
                layers,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=0,
                out_axes=0,
                length=cfg.repeats,
                metadata_params={nn.PARTITION_NAME: STACKED_AXIS, "layer_step": step},
            )
            stream, of_periods = scanned(cfg, cfg.period, first, name="periods")(stream, of_periods)
        else:
            new_states = []
            for i in range(cfg.repeats):
                state = None if of_periods is None else of_periods[i]
                stream, state = layers(cfg, cfg.period, first + i * step, name=f"period{i}")(stream, state)
                new_states.append(state)
            of_periods = None if of_periods is None else new_states
        if states is None:
            return stream, None
        mask_BL = stream[1].mask_BL
        read = states["read"] + (length if mask_BL is None else jnp.sum(mask_BL, axis=1, dtype=jnp.int32))
        return stream, {"prefix": of_prefix, "periods": of_periods, "read": read}


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


def hidden(
    config: ModelConfig, params: Any, tokens_BL: jax.Array, mask_BL: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """(x_BLD, head_DV): final hidden states in the compute dtype and the float32 head; the loss joins them.

    mask_BL: false at padding, which must stand left of a sequence's tokens and changes nothing at them.
    """
    x_BLD, head_DV, _ = LanguageModel(config).apply({"params": params}, tokens_BL, None, mask_BL)
    return x_BLD, head_DV


def logits(config: ModelConfig, params: Any, tokens_BL: jax.Array, mask_BL: jax.Array | None = None) -> jax.Array:
    """Next-token logits (B, L, V), float32."""
    x_BLD, head_DV = hidden(config, params, tokens_BL, mask_BL)
    return _project(x_BLD, head_DV)


def init_states(config: ModelConfig, batch: int, max_length: int) -> Any:
    """Empty decode states of every layer for sequences of at most `max_length` tokens, and how many each has read."""

    def of(layers: tuple[Layer, ...]) -> tuple:
        return tuple(
            tuple(mixer.init_state(config, batch, max_length) for mixer in mixers(layer, config)) for layer in layers
        )

    period = of(config.period)
    if config.scan_layers:
        periods = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], config.repeats, axis=0), period)
    else:
        periods = [period] * config.repeats
    return {"prefix": of(config.prefix), "periods": periods, "read": jnp.zeros(batch, jnp.int32)}


def decode_step(
    config: ModelConfig, params: Any, tokens_BL: jax.Array, states: Any, mask_BL: jax.Array | None = None
) -> tuple[jax.Array, Any]:
    """Logits (B, V) after reading tokens_BL (one token, or a whole prompt) from `states`, and the states after it.

    Prompts of unequal length are padded on the left, where mask_BL is false. The caller keeps the total within the
    `max_length` of `init_states`: there is one slot a token.
    """
    x_BLD, head_DV, states = LanguageModel(config).apply({"params": params}, tokens_BL, states, mask_BL)
    return _project(x_BLD[:, -1:], head_DV)[:, 0], states


def _project(x_BLD: jax.Array, head_DV: jax.Array) -> jax.Array:
    precise = jnp.promote_types(x_BLD.dtype, jnp.float32)
    return jnp.einsum("bld,dv->blv", x_BLD, head_DV.astype(x_BLD.dtype), preferred_element_type=precise)

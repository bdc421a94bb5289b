"""A language model: embedding, a stack of residual blocks that repeats a pattern, norm, head; perhaps an encoder.

The stack is one `nn.scan` over periods of the pattern (`scan_layers`) or written out; both are the same function. Use
it through `init`, `hidden`, `logits` and `decode_step` on plain pytrees.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import meta

from research.config import Layer, ModelConfig, check
from research.models import heads, remat
from research.models.attention.attention import distance_tables
from research.models.experts.router import ROUTING
from research.models.heads import Heads
from research.models.initialisers import NORMAL, Normal, Uniform
from research.models.layers import BRANCH, STACKED_AXIS, Shared, draw, look_up, norm, parameter
from research.models.mixers import Mixer, check_hand_over, mixers_of
from research.optim.parametrisation import branch_multiplier
from research.sharding import constrain

SMALL_EMBEDDING = 1e-4  # of RWKV's published code


class Layers(nn.Module):
    """Residual layers in a row, each of which is computed again for its gradient as `model.remat` says."""

    config: ModelConfig
    layers: tuple[Layer, ...]
    first: int  # number of the first of them in the stack

    @nn.compact
    def __call__(self, stream: tuple[jax.Array, Shared], states: tuple | None) -> tuple[tuple, tuple | None]:
        new_states = []
        for i in range(len(self.layers)):
            layer = partial(_layer, i=i)
            if self.config.remat != "none":
                layer = nn.remat(layer, policy=remat.POLICIES[self.config.remat])
            stream, state = layer(self, stream, None if states is None else states[i])
            new_states.append(state)
        return stream, None if states is None else tuple(new_states)


def _layer(module: Layers, stream: tuple[jax.Array, Shared], states: tuple | None, *, i: int) -> tuple[tuple, tuple]:
    """x + mixer(norm(x)) for each mixer of the module's i-th layer, or as norm_placement and the like say."""
    cfg, layer, (x_BLD, shared), new_states = module.config, module.layers[i], stream, []
    entering_BLD = x_BLD
    normed_BLD = norm(cfg, name=f"{BRANCH}{i}_norm")(x_BLD) if cfg.shared_norm else None
    for j, (part, mixer) in enumerate(zip(("mixer", "channel"), mixers_of(layer, cfg))):
        mixing = mixer.module(cfg, module.first + i, name=f"{BRANCH}{i}_{part}")
        layer_norm = None if cfg.shared_norm else norm(cfg, name=f"{BRANCH}{i}_{part}_norm")
        read_BLD = entering_BLD if cfg.parallel_mixers else x_BLD
        if cfg.norm_placement == "pre":
            read_BLD = normed_BLD if layer_norm is None else layer_norm(read_BLD)
        mixed_BLD, state, shared = mixing(read_BLD, None if states is None else states[j], shared)
        if cfg.norm_placement == "post":
            mixed_BLD = layer_norm(mixed_BLD)
        multiplier = branch_multiplier(cfg)
        mixed_BLD = mixed_BLD if multiplier == 1 else mixed_BLD * multiplier
        x_BLD = constrain(x_BLD + mixed_BLD, "batch length activation")
        new_states.append(state)
    return (x_BLD, shared), tuple(new_states)


def stack(config: ModelConfig, stream: tuple, states: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    """The prefix, then the periods, scanned or written out, as parts of the module that calls this.

    states: {"prefix", "periods"}, of each prefix layer and of each repetition (stacked when scanned), or None for both.
    """
    of_prefix, of_periods = states["prefix"], states["periods"]
    if config.prefix:
        stream, of_prefix = Layers(config, config.prefix, 0, name="prefix")(stream, of_prefix)
    first, step = len(config.prefix), len(config.period)
    if config.scan_layers:
        scanned = nn.scan(
            Layers,
            variable_axes={"params": 0, ROUTING: 0},
            split_rngs={"params": True},
            in_axes=0,
            out_axes=0,
            length=config.repeats,
            metadata_params={nn.PARTITION_NAME: STACKED_AXIS, "layer_step": step},
        )
        stream, of_periods = scanned(config, config.period, first, name="periods")(stream, of_periods)
    else:
        new_states = []
        for i in range(config.repeats):
            state = None if of_periods is None else of_periods[i]
            stream, state = Layers(config, config.period, first + i * step, name=f"period{i}")(stream, state)
            new_states.append(state)
        of_periods = None if of_periods is None else new_states
    return stream, {"prefix": of_prefix, "periods": of_periods}


class Encoder(nn.Module):
    """Sources (B, S) and true at their tokens (B, S) to what the decoder reads (B, S, D), and the final states.

    The states are those of mixers that hand theirs to the decoder (Mixer.start_from), None elsewhere.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self, table_VD: jax.Array, tokens_BS: jax.Array, mask_BS: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        cfg, batch = self.config, len(tokens_BS)
        x_BSD = embed(self, table_VD, tokens_BS, None, None)
        states = layer_states(cfg, lambda mixer: mixer.init_state(cfg, batch, 0) if mixer.start_from else None)
        shared = Shared(mask_BL=mask_BS, distance_tables_nNH=distance_tables(self))
        (x_BSD, _), states = stack(cfg, (x_BSD, shared), states)
        return norm(cfg, name="final_norm")(x_BSD), states


class LanguageModel(nn.Module):
    """Tokens (B, L) int32 to final hidden states (B, L, D) in the compute dtype, and the heads' matrices.

    states: {"prefix", "periods": see `stack`, "read": tokens read (B,)}. sources: an encoder-decoder's source tokens
    (B, S) int32 and true where they are real (B, S); None once the states hold what the decoder needs of them.
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens_BL: jax.Array,
        states: Any = None,
        mask_BL: jax.Array | None = None,
        sources: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, Heads, Any]:
        cfg = self.config
        V, D = cfg.vocab_size, cfg.width
        # Under a norm only a row's direction counts, which the first steps choose where it starts at nearly nothing.
        table_init = Uniform(SMALL_EMBEDDING) if cfg.embedding_norm else NORMAL
        table_VD = parameter(self, "embedding", (V, D), "vocab width", table_init, "embedding")
        inner = {"prefix": None, "periods": None} if states is None else states
        shared = Shared(mask_BL=mask_BL, distance_tables_nNH=distance_tables(self))
        if sources is not None:
            source_BSD, final = Encoder(cfg.encoder, name="encoder")(table_VD, *sources)
            shared = shared.replace(source_BSD=source_BSD, source_mask_BS=sources[1])
            inner = hand_over(cfg, final, inner)
        read_B = None if states is None else states["read"]
        x_BLD = embed(self, table_VD, tokens_BL, mask_BL, read_B)
        (x_BLD, _), inner = stack(cfg, (x_BLD, shared), inner)
        if states is not None:
            read_B += tokens_BL.shape[1] if mask_BL is None else jnp.sum(mask_BL, axis=1, dtype=jnp.int32)
            states = {**inner, "read": read_B}
        x_BLD = norm(cfg, name="final_norm")(x_BLD)
        return x_BLD, heads.declared(self, table_VD), states


def embed(
    module: LanguageModel | Encoder,
    table_VD: jax.Array,
    tokens_BL: jax.Array,
    mask_BL: jax.Array | None,
    read_B: jax.Array | None,
) -> jax.Array:
    """(B, L, D): rows of the table, with learned positions (counted from the first real token) and a norm if any."""
    cfg = module.config
    x_BLD = look_up(table_VD, tokens_BL).astype(cfg.compute_dtype)
    if cfg.max_positions is not None:
        whole = tokens_BL.shape[1] if mask_BL is None and read_B is None else 0  # else how many are real is not known
        check(
            whole <= cfg.max_positions,
            "model.max_positions",
            cfg.max_positions,
            f"must be at least the {whole} tokens of a sequence, whose positions beyond it have no row",
            "shorten the sequence, or give the table more rows",
        )
        shape = (cfg.max_positions, cfg.width)
        table_LD = parameter(module, "positions", shape, "positions width", Normal(0.01), "embedding")
        if mask_BL is None:
            numbers_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1])[None], tokens_BL.shape)
        else:
            numbers_BL = jnp.maximum(jnp.cumsum(mask_BL, axis=1) - 1, 0)
        if read_B is not None:
            numbers_BL += read_B[:, None]
        x_BLD += look_up(table_LD, numbers_BL, "positions").astype(cfg.compute_dtype)
    if cfg.embedding_norm:
        x_BLD = norm(cfg, name="embedding_norm")(x_BLD)
    return constrain(x_BLD, "batch length activation")


def layer_states(config: ModelConfig, of: Callable[[Mixer], Any]) -> dict[str, Any]:
    """{"prefix", "periods"}: what `of` makes for each mixer, stacked over repetitions where these are scanned."""
    prefix, period = (
        tuple(tuple(of(mixer) for mixer in mixers_of(layer, config)) for layer in layers)
        for layers in (config.prefix, config.period)
    )
    if config.scan_layers:
        return {"prefix": prefix, "periods": jax.tree.map(lambda a: jnp.repeat(a[None], config.repeats, 0), period)}
    return {"prefix": prefix, "periods": [period] * config.repeats}


def hand_over(config: ModelConfig, final: dict[str, Any], states: dict[str, Any]) -> dict[str, Any]:
    """The decoder's states (or Nones) with those mixers started that start from the encoder's layer at their place."""
    stack_mixers = [mixer for layer in config.layers for mixer in mixers_of(layer, config)]
    if not any(mixer.start_from for mixer in stack_mixers):
        return states

    def started(layers: tuple[Layer, ...], of_encoder: Any, own: Any) -> tuple:
        return tuple(
            tuple(
                mixer.start_from(of_encoder[i][j]) if mixer.start_from else (None if own is None else own[i][j])
                for j, mixer in enumerate(mixers_of(layer, config))
            )
            for i, layer in enumerate(layers)
        )

    prefix = started(config.prefix, final["prefix"], states["prefix"])
    if config.scan_layers:
        return {"prefix": prefix, "periods": started(config.period, final["periods"], states["periods"])}
    own = states["periods"] or [None] * config.repeats
    periods = [started(config.period, final["periods"][i], own[i]) for i in range(config.repeats)]
    return {"prefix": prefix, "periods": periods}


def abstract(config: ModelConfig) -> Any:
    """The tree of `layers.Parameter`s, whose values are shapes and dtypes; nothing is allocated."""
    check_hand_over(config)
    tokens_BL = jnp.zeros((1, 1), jnp.int32)
    sources = None if config.encoder is None else (tokens_BL, jnp.ones((1, 1), bool))
    model = LanguageModel(config)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):  # one token is not to be split
        return jax.eval_shape(lambda: model.init(jax.random.key(0), tokens_BL, sources=sources)["params"])


def init(config: ModelConfig, key: jax.Array, shardings: Any = None) -> Any:
    """Float32 parameters as a plain pytree, the same numbers for every placement by `shardings`."""
    return draw(abstract(config), key, shardings)


def unbox(boxed: Any) -> Any:
    """The abstract tree without its boxes: a plain pytree of shapes and dtypes."""
    return meta.unbox(boxed)


def hidden(
    config: ModelConfig,
    params: Any,
    tokens_BL: jax.Array,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, Heads, Any]:
    """(x_BLD, heads, routing): final hidden states in the compute dtype and the float32 heads; the loss joins them.

    mask_BL: false at padding, which must stand left of a sequence's tokens and changes nothing at them. sources: what
    an encoder-decoder's encoder reads: tokens (B, S), and true at the real ones (B, S), which may end early.
    routing: router.RouterStatistics of every mixture of experts, in a tree shaped like `params` (empty without one);
    auxiliary losses, metrics and the balancing bias follow from it.
    """
    (x_BLD, of_model, _), left = LanguageModel(config).apply(
        {"params": params}, tokens_BL, None, mask_BL, sources, mutable=[ROUTING]
    )
    return x_BLD, of_model, left.get(ROUTING, {})


def logits(
    config: ModelConfig,
    params: Any,
    tokens_BL: jax.Array,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Next-token logits (B, L, V), float32; arguments as of `hidden`."""
    x_BLD, of_model, _ = hidden(config, params, tokens_BL, mask_BL, sources)
    return heads.word_logits(x_BLD, of_model)


def scores(
    config: ModelConfig,
    params: Any,
    tokens_BL: jax.Array,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """The scalar head's number after each token (B, L), float32; arguments as of `hidden`."""
    x_BLD, of_model, _ = hidden(config, params, tokens_BL, mask_BL, sources)
    return heads.token_scores(x_BLD, of_model)


def class_logits(
    config: ModelConfig,
    params: Any,
    tokens_BL: jax.Array,
    read_BL: jax.Array,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """Class logits (B, C), float32, after the last token of each row at which read_BL is true; the rest as `hidden`."""
    x_BLD, of_model, _ = hidden(config, params, tokens_BL, mask_BL, sources)
    return heads.row_class_logits(x_BLD, of_model, read_BL)


def init_states(config: ModelConfig, batch: int, max_length: int) -> Any:
    """Empty decode states of every layer for sequences of at most `max_length` tokens, and how many each has read."""
    states = layer_states(config, lambda mixer: mixer.init_state(config, batch, max_length))
    return {**states, "read": jnp.zeros(batch, jnp.int32)}


def decode_step(
    config: ModelConfig,
    params: Any,
    tokens_BL: jax.Array,
    states: Any,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, Any]:
    """Logits (B, V) after reading tokens_BL (one token, or a whole prompt) from `states`, and the states after it.

    Prompts of unequal length are padded on the left, where mask_BL is false. The caller keeps the total within the
    `max_length` of `init_states`: there is one slot a token. An encoder-decoder is given its `sources` (as in `hidden`)
    at the first step, and none after it.
    """
    x_BLD, of_model, states = LanguageModel(config).apply({"params": params}, tokens_BL, states, mask_BL, sources)
    return heads.word_logits(x_BLD[:, -1:], of_model)[:, 0], states


def scored_step(
    config: ModelConfig,
    params: Any,
    tokens_BL: jax.Array,
    states: Any,
    mask_BL: jax.Array | None = None,
    sources: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array, Any]:
    """`decode_step` of a model that judges as it writes: (logits (B, V), the scalar head's number after each of
    tokens_BL (B, L), states)."""
    x_BLD, of_model, states = LanguageModel(config).apply({"params": params}, tokens_BL, states, mask_BL, sources)
    return heads.word_logits(x_BLD[:, -1:], of_model)[:, 0], heads.token_scores(x_BLD, of_model), states

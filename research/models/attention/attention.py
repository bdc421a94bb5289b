"""Causal self-attention with grouped queries; rotary, relative or no positions; optional biases, QK-norm and window.

Whole sequence and decoding share one module: without a state it attends within x; with a state it appends x (any number
of tokens, so a prompt is read in one call) to the cache and attends to everything before.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.attention.positions import (
    by_source,
    distance_buckets,
    distance_waves,
    rotary_angles,
    rotary_frequencies,
    rotate,
)
from research.models.layers import Normal, RMSNorm, Shared, along_last, parameter, project, zeros
from research.sharding import constrain

MASKED_SCORE = -1e30  # finite, so that a row with nothing to see yields no NaN


class AttentionState(flax.struct.PyTreeNode):
    """Keys (already rotated) and values seen so far, and how many: slots past `seen` are empty."""

    keys_BSGK: jax.Array
    values_BSGK: jax.Array
    real_BS: jax.Array  # false where a slot holds padding
    seen: jax.Array  # int32 scalar


def init_state(config: ModelConfig, batch: int, max_length: int) -> AttentionState:
    """An empty cache of `max_length` slots in the compute dtype."""
    shape = (batch, max_length, config.attention.kv_heads, config.attention.head_dim)
    empty = jnp.zeros(shape, config.compute_dtype)
    return AttentionState(empty, empty, jnp.ones((batch, max_length), bool), jnp.zeros((), jnp.int32))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(K) + mask) v (Vaswani 2017), heads grouped as in Ainslie 2023."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: AttentionState | None, shared: Shared
    ) -> tuple[jax.Array, AttentionState | None, Shared]:
        cfg, D = self.config.attention, self.config.width
        H, G, K = cfg.heads, cfg.kv_heads, cfg.head_dim
        q_BLHK = constrain(self._projected(x_BLD, "query", "heads", H), "batch length heads head_dim")
        k_BLGK = self._projected(x_BLD, "key", "kv_heads", G)
        v_BLGK = self._projected(x_BLD, "value", "kv_heads", G)
        if cfg.qk_norm != "none":
            q_BLHK, k_BLGK = self._normed(q_BLHK, "query_norm", "heads"), self._normed(k_BLGK, "key_norm", "kv_heads")
        start = jnp.zeros((), jnp.int32) if state is None else state.seen
        positions_L = start + jnp.arange(x_BLD.shape[1])
        if cfg.positions == "rotary":
            frequencies = rotary_frequencies(cfg.rotary_channels, cfg.rope_theta, cfg.rope_scaling)
            angles = rotary_angles(positions_L[None], frequencies, jnp.promote_types(x_BLD.dtype, jnp.float32))
            q_BLHK, k_BLGK = rotate(q_BLHK, angles, cfg.rope_pairs), rotate(k_BLGK, angles, cfg.rope_pairs)
        if state is not None:
            state = _append(state, k_BLGK, v_BLGK, shared.mask_BL)
            k_BLGK, v_BLGK = state.keys_BSGK, state.values_BSGK
        real_BS = shared.mask_BL if state is None else state.real_BS
        mask_BLS = visible(positions_L, k_BLGK.shape[1], real_BS, cfg.window, cfg.causal)
        scores_BHLS = None
        if cfg.positions == "relative":
            q_BLHK, scores_BHLS = self._by_distance(q_BLHK, positions_L, k_BLGK.shape[1])
        elif cfg.positions == "buckets":
            bucket_LS = distance_buckets(positions_L[:, None] - jnp.arange(k_BLGK.shape[1])[None], cfg)
            scores_BHLS = jnp.moveaxis(shared.distance_table_NH[bucket_LS], 2, 0)[None]
        mixed_BLHK = attend(q_BLHK, k_BLGK, v_BLGK, mask_BLS, scores_BHLS)
        out_init = Normal((H * K * 2 * self.config.depth) ** -0.5)
        out_HKD = parameter(self, "out", (H, K, D), "heads head_dim width", out_init, "hidden")
        y_BLD = project(mixed_BLHK, out_HKD, contracted=2)
        if cfg.biases == "all":
            y_BLD = along_last(jnp.add, y_BLD, parameter(self, "out_bias", (D,), "width", zeros, "vector"))
        return y_BLD, state, shared

    def _projected(self, x_BLD: jax.Array, name: str, axis: str, heads: int) -> jax.Array:
        """x by heads (B, L, heads, K), with a bias if the config asks for one."""
        D, K = self.config.width, self.config.attention.head_dim
        weight_DHK = parameter(self, name, (D, heads, K), f"width {axis} head_dim", Normal(D**-0.5), "hidden")
        y_BLHK = project(x_BLD, weight_DHK)
        if self.config.attention.biases == "none":
            return y_BLHK
        bias_HK = parameter(self, f"{name}_bias", (heads, K), f"{axis} head_dim", zeros, "vector")
        return y_BLHK + bias_HK.astype(y_BLHK.dtype)[None, None]

    def _normed(self, x_BLHK: jax.Array, name: str, axis: str) -> jax.Array:
        """RMSNorm of each head's channels, or of all heads' channels together."""
        epsilon = self.config.norm_epsilon
        if self.config.attention.qk_norm == "head":
            return RMSNorm(epsilon, "head_dim", name=name)(x_BLHK)
        flat_BLD = x_BLHK.reshape(*x_BLHK.shape[:2], -1)
        return RMSNorm(epsilon, axis, name=name)(flat_BLD).reshape(x_BLHK.shape)

    def _by_distance(self, q_BLHK: jax.Array, positions_L: jax.Array, sources: int) -> tuple[jax.Array, jax.Array]:
        """Queries for the keys, and scores of the distances, scaled: (q + u) and (q + v) W r of Dai 2019, section 3.3.

        The distances are projected once for the whole batch.
        """
        D, H, K = self.config.width, *q_BLHK.shape[2:]
        weight_DHK = parameter(self, "distance", (D, H, K), "width heads head_dim", Normal(D**-0.5), "hidden")
        waves_SD = distance_waves(sources, D, q_BLHK.dtype)
        distances_SHK = project(waves_SD[None], weight_DHK)[0]
        to_content_HK, to_distance_HK = (
            parameter(self, name, (H, K), "heads head_dim", Normal(0.02), "vector").astype(q_BLHK.dtype)
            for name in ("content_bias", "distance_bias")
        )
        precise = jnp.promote_types(q_BLHK.dtype, jnp.float32)
        scaled_BLHK = (q_BLHK + to_distance_HK[None, None]) * K**-0.5
        scores_BHLS = jnp.einsum("blhk,shk->bhls", scaled_BLHK, distances_SHK, preferred_element_type=precise)
        return q_BLHK + to_content_HK[None, None], by_source(scores_BHLS, positions_L)


def attend(
    q_BLHK: jax.Array,
    k_BSGK: jax.Array,
    v_BSGK: jax.Array,
    mask_BLS: jax.Array,
    added_BHLS: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Scaled dot-product attention; head h reads key-value head h // (H / G). Scores and softmax in float32.

    mask_BLS is true where a query sees a source; its batch may be 1. `added_BHLS` are further scores, whose batch may
    be 1 too; `scale` is 1 / sqrt(K) if not given. Values may have another number of channels than queries and keys.

    The heads of one group are laid out as further queries of their key-value head, M = L * (H / G) rows, so that both
    products are plain batched matrix products with nothing repeated.
    """
    B, L, H, K = q_BLHK.shape
    S, G = k_BSGK.shape[1:3]
    group = H // G
    q_BGMK = (
        (q_BLHK * (scale or K**-0.5)).reshape(B, L, G, group, K).transpose(0, 2, 1, 3, 4).reshape(B, G, L * group, K)
    )
    scores_BGMS = jnp.einsum(
        "bgmk,bsgk->bgms", q_BGMK, k_BSGK, preferred_element_type=jnp.promote_types(q_BLHK.dtype, jnp.float32)
    )
    if added_BHLS is not None:
        added_BGMS = added_BHLS.reshape(-1, G, group, L, S).transpose(0, 1, 3, 2, 4).reshape(-1, G, L * group, S)
        scores_BGMS += added_BGMS.astype(scores_BGMS.dtype)
    mask_BMS = jnp.repeat(mask_BLS, group, axis=1)
    weights_BGMS = jax.nn.softmax(jnp.where(mask_BMS[:, None], scores_BGMS, MASKED_SCORE), axis=-1)
    mixed_BGMK = jnp.einsum("bgms,bsgk->bgmk", weights_BGMS.astype(v_BSGK.dtype), v_BSGK)
    return mixed_BGMK.reshape(B, G, L, group, -1).transpose(0, 2, 1, 3, 4).reshape(B, L, H, -1)


def visible(
    positions_L: jax.Array, sources: int, real_BS: jax.Array | None, window: int | None = None, causal: bool = True
) -> jax.Array:
    """mask_BLS (its batch 1 without padding): no padding, none of the future if causal, nothing outside the window."""
    distance_LS = positions_L[:, None] - jnp.arange(sources)[None, :]
    seen_LS = distance_LS >= 0 if causal else jnp.ones_like(distance_LS, bool)
    if window is not None:
        seen_LS &= jnp.abs(distance_LS) < window
    return seen_LS[None] if real_BS is None else seen_LS[None] & real_BS[:, None, :]


def _append(state: AttentionState, k_BLGK: jax.Array, v_BLGK: jax.Array, mask_BL: jax.Array | None) -> AttentionState:
    at = (0, state.seen, 0, 0)
    real_BS = state.real_BS if mask_BL is None else jax.lax.dynamic_update_slice(state.real_BS, mask_BL, at[:2])
    return AttentionState(
        jax.lax.dynamic_update_slice(state.keys_BSGK, k_BLGK, at),
        jax.lax.dynamic_update_slice(state.values_BSGK, v_BLGK, at),
        real_BS,
        state.seen + k_BLGK.shape[1],
    )


def distance_table(module: nn.Module) -> jax.Array | None:
    """T5's scores of distances (buckets, H), as a parameter of the stack that `module` is; None for other positions."""
    cfg = module.config.attention
    if not distance_table_params(module.config):
        return None
    return parameter(module, "distances", (cfg.buckets, cfg.heads), "buckets heads", Normal(0.02), "vector")


def distance_table_params(config: ModelConfig) -> int:
    """Parameters of that table, which only a stack with self-attention has."""
    needed = config.attention.positions == "buckets" and any("attention" in layer for layer in config.layers)
    return config.attention.buckets * config.attention.heads if needed else 0


def params(config: ModelConfig) -> int:
    """Parameters of one attention layer: the projections, their biases, norm gains, and what distances need."""
    cfg = config.attention
    queries, keys = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
    biases = {"none": 0, "qkv": queries + 2 * keys, "all": queries + 2 * keys + config.width}
    gains = {"none": 0, "head": 2 * cfg.head_dim, "full": queries + keys}
    distances = config.width * queries + 2 * queries if cfg.positions == "relative" else 0
    return matmul_params(config) + biases[cfg.biases] + gains[cfg.qk_norm] + distances


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    cfg = config.attention
    return config.width * cfg.head_dim * (2 * cfg.heads + 2 * cfg.kv_heads)


def sequence_flops(config: ModelConfig, length: int) -> int:
    """Forward FLOPs of the two L x L products over one whole sequence, every score counted (2 L^2 H K each).

    Relative positions add a third such product and the projection of L distances (2 L D H K). The program projects them
    once for a batch and not once a sequence, and needs no gradient of the distances themselves: for batches above
    one sequence, and for training, this is an upper bound.
    """
    cfg = config.attention
    product = 2 * length * length * cfg.heads * cfg.head_dim
    if cfg.positions != "relative":
        return 2 * product
    return 3 * product + 2 * length * config.width * cfg.heads * cfg.head_dim


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Cache of one layer for one sequence of `length` tokens."""
    return 2 * length * config.attention.kv_heads * config.attention.head_dim * bytes_per_value

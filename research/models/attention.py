"""Causal self-attention with grouped queries, rotary positions, optional QK-norm and sliding window.

Whole sequence and decoding share one module: without a state it attends within x; with a state it appends x (any number
of tokens, so a prompt is read in one call) to the cache and attends to everything before.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.model_config import AttentionConfig, ModelConfig
from research.models.layers import Normal, RMSNorm, Shared, parameter, project, rotary_angles, rotate
from research.sharding import constrain

MASKED_SCORE = -1e30  # finite, so that a row with nothing to see yields no NaN


class AttentionState(flax.struct.PyTreeNode):
    """Keys (already turned) and values seen so far, and how many: slots past `seen` are empty."""

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
        init = Normal(D**-0.5)
        query_DHK = parameter(self, "query", (D, H, K), "width heads head_dim", init, "hidden")
        key_DGK = parameter(self, "key", (D, G, K), "width kv_heads head_dim", init, "hidden")
        value_DGK = parameter(self, "value", (D, G, K), "width kv_heads head_dim", init, "hidden")
        out_init = Normal((H * K * 2 * self.config.depth) ** -0.5)
        out_HKD = parameter(self, "out", (H, K, D), "heads head_dim width", out_init, "hidden")

        q_BLHK = project(x_BLD, query_DHK)
        k_BLGK = project(x_BLD, key_DGK)
        v_BLGK = project(x_BLD, value_DGK)
        q_BLHK = constrain(q_BLHK, "batch length heads head_dim")
        if cfg.qk_norm:
            q_BLHK = RMSNorm(self.config.norm_epsilon, "head_dim", name="query_norm")(q_BLHK)
            k_BLGK = RMSNorm(self.config.norm_epsilon, "head_dim", name="key_norm")(k_BLGK)
        start = jnp.zeros((), jnp.int32) if state is None else state.seen
        positions_1L = (start + jnp.arange(x_BLD.shape[1]))[None, :]
        angles = rotary_angles(positions_1L, K, cfg.rope_theta, jnp.promote_types(x_BLD.dtype, jnp.float32))
        q_BLHK, k_BLGK = rotate(q_BLHK, angles, cfg.rope_pairs), rotate(k_BLGK, angles, cfg.rope_pairs)
        if state is not None:
            state = _append(state, k_BLGK, v_BLGK, shared.mask_BL)
            k_BLGK, v_BLGK = state.keys_BSGK, state.values_BSGK
        visible_1LS = _visible(positions_1L[0], k_BLGK.shape[1], cfg)[None]
        real_BS = shared.mask_BL if state is None else state.real_BS
        mask_BLS = visible_1LS if real_BS is None else visible_1LS & real_BS[:, None, :]
        mixed_BLHK = attend(q_BLHK, k_BLGK, v_BLGK, mask_BLS)
        return project(mixed_BLHK, out_HKD, contracted=2), state, shared


def attend(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGK: jax.Array, mask_BLS: jax.Array) -> jax.Array:
    """Scaled dot-product attention; head h reads key-value head h // (H / G). Scores and softmax in float32.

    mask_BLS is true where a query sees a source; its batch may be 1.

    The heads of one group are laid out as further queries of their key-value head, M = L * (H / G) rows, so that both
    products are plain batched matrix products with nothing repeated.
    """
    B, L, H, K = q_BLHK.shape
    G = k_BSGK.shape[2]
    group = H // G
    q_BGMK = (q_BLHK * K**-0.5).reshape(B, L, G, group, K).transpose(0, 2, 1, 3, 4).reshape(B, G, L * group, K)
    scores_BGMS = jnp.einsum(
        "bgmk,bsgk->bgms", q_BGMK, k_BSGK, preferred_element_type=jnp.promote_types(q_BLHK.dtype, jnp.float32)
    )
    mask_BMS = jnp.repeat(mask_BLS, group, axis=1)
    weights_BGMS = jax.nn.softmax(jnp.where(mask_BMS[:, None], scores_BGMS, MASKED_SCORE), axis=-1)
    mixed_BGMK = jnp.einsum("bgms,bsgk->bgmk", weights_BGMS.astype(v_BSGK.dtype), v_BSGK)
    return mixed_BGMK.reshape(B, G, L, group, K).transpose(0, 2, 1, 3, 4).reshape(B, L, H, K)


def _visible(positions_L: jax.Array, sources: int, config: AttentionConfig) -> jax.Array:
    """mask_LS: which source positions each query may see: none in the future if causal, none outside the window."""
    distance_LS = positions_L[:, None] - jnp.arange(sources)[None, :]
    seen_LS = distance_LS >= 0 if config.causal else jnp.ones_like(distance_LS, bool)
    return seen_LS if config.window is None else seen_LS & (jnp.abs(distance_LS) < config.window)


def _append(state: AttentionState, k_BLGK: jax.Array, v_BLGK: jax.Array, mask_BL: jax.Array | None) -> AttentionState:
    at = (0, state.seen, 0, 0)
    real_BS = state.real_BS if mask_BL is None else jax.lax.dynamic_update_slice(state.real_BS, mask_BL, at[:2])
    return AttentionState(
        jax.lax.dynamic_update_slice(state.keys_BSGK, k_BLGK, at),
        jax.lax.dynamic_update_slice(state.values_BSGK, v_BLGK, at),
        real_BS,
        state.seen + k_BLGK.shape[1],
    )


def params(config: ModelConfig) -> int:
    """Parameters of one attention layer: four projections, and two norm gains with QK-norm."""
    cfg = config.attention
    projections = config.width * cfg.head_dim * (2 * cfg.heads + 2 * cfg.kv_heads)
    return projections + (2 * cfg.head_dim if cfg.qk_norm else 0)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token is multiplied with."""
    cfg = config.attention
    return config.width * cfg.head_dim * (2 * cfg.heads + 2 * cfg.kv_heads)


def sequence_flops(config: ModelConfig, length: int) -> int:
    """Forward FLOPs of the two L x L products over one whole sequence, every score counted (2 L^2 H K each)."""
    return 4 * length * length * config.attention.heads * config.attention.head_dim


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Cache of one layer for one sequence of `length` tokens."""
    return 2 * length * config.attention.kv_heads * config.attention.head_dim * bytes_per_value

"""Causal self-attention with grouped queries; rotary, relative or no positions; optional biases, QK-norm and window.

Whole sequence and decoding share one module: without a state it attends within x; with a state it appends x (any number
of tokens, so a prompt is read in one call) to the cache and attends to everything before.
"""

from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import AttentionConfig, ModelConfig
from research.models.attention.positions import (
    by_source,
    distance_buckets,
    distance_waves,
    rotary_angles,
    rotary_frequencies,
    rotate,
)
from research.models.initialisers import NORMAL, NORMAL_OUT, Normal, zeros
from research.models.kernels.attention import Call, attend, scores
from research.models.kernels.attention_mask import AddedScores, Mask
from research.models.layers import (
    RMSNorm,
    Shared,
    along_last,
    at_least_float32,
    parameter,
    project,
    project_each,
)
from research.optim.parametrisation import Role
from research.sharding import constrain, ways


class AttentionState(flax.struct.PyTreeNode):
    """Keys (already rotated) and values seen so far, and how many: slots past `seen` are empty.

    They lie as the products of one query with them read them: from arrays (B, S, G, K), XLA on a CPU makes a transposed
    copy of the whole cache at every token.
    """

    keys_BGKS: jax.Array
    values_BGSK: jax.Array
    real_BS: jax.Array  # false where a slot holds padding
    seen: jax.Array  # int32 scalar


def init_state(config: ModelConfig, batch: int, max_length: int) -> AttentionState:
    """An empty cache of `max_length` slots in the compute dtype."""
    G, K = config.attention.kv_heads, config.attention.head_dim
    keys_BGKS = jnp.zeros((batch, G, K, max_length), config.compute_dtype)
    values_BGSK = jnp.zeros((batch, G, max_length, K), config.compute_dtype)
    return AttentionState(keys_BGKS, values_BGSK, jnp.ones((batch, max_length), bool), jnp.zeros((), jnp.int32))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(K) + mask) v (Vaswani 2017), heads grouped as in Ainslie 2023."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: AttentionState | None, shared: Shared
    ) -> tuple[jax.Array, AttentionState | None, Shared]:
        cfg, D = self.config.attention, self.config.width
        H, K = cfg.heads, cfg.head_dim
        q_BLHK, k_BLGK, v_BLGK = self._projected(x_BLD)
        if cfg.qk_norm != "none":
            q_BLHK, k_BLGK = self._normed(q_BLHK, "query_norm", "heads"), self._normed(k_BLGK, "key_norm", "kv_heads")
        start = 0 if state is None else state.seen
        positions_L = start + jnp.arange(x_BLD.shape[1])
        if cfg.positions == "rotary":
            frequencies = rotary_frequencies(cfg.rotary_channels, cfg.rope_theta, cfg.rope_scaling)
            angles = rotary_angles(positions_L[None], frequencies, jnp.promote_types(x_BLD.dtype, jnp.float32))
            q_BLHK, k_BLGK = rotate(q_BLHK, angles, cfg.rope_pairs), rotate(k_BLGK, angles, cfg.rope_pairs)
        if state is not None:
            state = _append(state, k_BLGK, v_BLGK, shared.mask_BL)
            k_BLGK, v_BLGK = state.keys_BGKS.transpose(0, 3, 1, 2), state.values_BGSK.transpose(0, 2, 1, 3)
        real_BS = shared.mask_BL if state is None else state.real_BS
        # A decoder's sequences are padded before their tokens, an encoder's after them.
        mask = Mask(cfg.causal, cfg.window, start, real_BS, ends_early=not cfg.causal)
        added = None
        if cfg.positions == "relative":
            q_BLHK, added = self._by_distance(q_BLHK, k_BLGK.shape[1])
        elif cfg.positions == "buckets":
            added = AddedScores(partial(_by_bucket, cfg, shared.distance_tables_nNH))
        mixed_BLHK = attend(self.config, "attention", q_BLHK, k_BLGK, v_BLGK, mask, added, score_scale(self.config))
        out_HKD = parameter(self, "out", (H, K, D), "heads head_dim width", NORMAL_OUT, "hidden", contracted=2)
        y_BLD = project(mixed_BLHK, out_HKD, contracted=2)
        if cfg.biases == "all":
            y_BLD = along_last(jnp.add, y_BLD, parameter(self, "out_bias", (D,), "width", zeros, "vector"))
        return y_BLD, state, shared

    def _projected(self, x_BLD: jax.Array) -> list[jax.Array]:
        """Queries (B, L, H, K), keys and values (B, L, G, K), with biases if the config asks for them."""
        cfg, D = self.config.attention, self.config.width
        heads = {"query": (cfg.heads, "heads"), "key": (cfg.kv_heads, "kv_heads"), "value": (cfg.kv_heads, "kv_heads")}
        weights = []
        for name, (number, axis) in heads.items():
            axes = f"width {axis} head_dim"
            role = "hidden" if name == "query" else key_role(cfg) if name == "key" else value_role(cfg)
            weights.append((parameter(self, name, (D, number, cfg.head_dim), axes, NORMAL, role), axes))
        projected = list(project_each(x_BLD, *weights))
        projected[0] = constrain(projected[0], "batch length heads head_dim")
        if cfg.biases == "none":
            return projected
        for i, (name, (number, axis)) in enumerate(heads.items()):
            bias_HK = parameter(self, f"{name}_bias", (number, cfg.head_dim), f"{axis} head_dim", zeros, "vector")
            projected[i] += bias_HK.astype(x_BLD.dtype)[None, None]
        return projected

    def _normed(self, x_BLHK: jax.Array, name: str, axis: str) -> jax.Array:
        """RMSNorm of each head's channels, or of all heads' channels together."""
        epsilon = self.config.norm_epsilon
        if self.config.attention.qk_norm == "head":
            return RMSNorm(epsilon, "head_dim", name=name)(x_BLHK)
        flat_BLD = x_BLHK.reshape(*x_BLHK.shape[:2], -1)
        return RMSNorm(epsilon, axis, name=name)(flat_BLD).reshape(x_BLHK.shape)

    def _by_distance(self, q_BLHK: jax.Array, sources: int) -> tuple[jax.Array, AddedScores]:
        """Queries for the keys, and scores of the distances, scaled: (q + u) and (q + v) W r of Dai 2019, section 3.3.

        The distances are projected once for the whole batch.
        """
        D, H, K = self.config.width, *q_BLHK.shape[2:]
        weight_DHK = parameter(self, "distance", (D, H, K), "width heads head_dim", NORMAL, "hidden")
        waves_SD = distance_waves(sources, D, q_BLHK.dtype)
        distances_SHK = project(waves_SD[None], weight_DHK)[0]
        to_content_HK, to_distance_HK = (
            parameter(self, name, (H, K), "heads head_dim", Normal(0.02), "vector").astype(q_BLHK.dtype)
            for name in ("content_bias", "distance_bias")
        )
        scaled_BLHK = (q_BLHK + to_distance_HK[None, None]) * score_scale(self.config)
        make = partial(_of_distances, at_least_float32(distances_SHK))  # in which the blocks' gradients add up
        return q_BLHK + to_content_HK[None, None], AddedScores(make, scaled_BLHK)


def score_scale(config: ModelConfig) -> float:
    """Of products of queries and keys: 1 / sqrt(K), times what the parametrisation makes of heads that grow."""
    K = config.attention.head_dim
    return K**-0.5 * config.parametrisation.score_ratio(K)


def value_role(config: AttentionConfig) -> Role:
    """Of matrices that make values, or keys without a norm: multi-query attention has one head at every width."""
    return "narrow" if config.kv_heads == 1 < config.heads else "hidden"


def key_role(config: AttentionConfig) -> Role:
    """Of the matrix that makes keys, which may be normed."""
    return "normed" if value_role(config) == "narrow" and config.qk_norm != "none" else value_role(config)


def _of_distances(
    distances_SHK: jax.Array, scaled_BLHK: jax.Array, positions_L: jax.Array, sources_S: jax.Array
) -> jax.Array:
    """Scores (B, H, L, S) of queries with the distances back to the sources, of which none is as far as there are."""
    precise = jnp.promote_types(scaled_BLHK.dtype, jnp.float32)
    near_SHK = distances_SHK[: len(sources_S)].astype(scaled_BLHK.dtype)
    scores_BHLS = jnp.einsum("blhk,shk->bhls", scaled_BLHK, near_SHK, preferred_element_type=precise)
    return by_source(scores_BHLS, positions_L, sources_S)


def _by_bucket(
    config: AttentionConfig, tables_nNH: jax.Array, of_queries: None, positions_L: jax.Array, sources_S: jax.Array
) -> jax.Array:
    """Scores (n, H, L, S) of the distances' buckets, of each table."""
    bucket_LS = distance_buckets(positions_L[:, None] - sources_S[None], config)
    return jnp.moveaxis(tables_nNH[:, bucket_LS], 3, 1)


def _append(state: AttentionState, k_BLGK: jax.Array, v_BLGK: jax.Array, mask_BL: jax.Array | None) -> AttentionState:
    append = partial(jax.lax.dynamic_update_slice_in_dim, start_index=state.seen)
    return AttentionState(
        append(state.keys_BGKS, k_BLGK.transpose(0, 2, 3, 1), axis=3),
        append(state.values_BGSK, v_BLGK.transpose(0, 2, 1, 3), axis=2),
        state.real_BS if mask_BL is None else append(state.real_BS, mask_BL, axis=1),
        state.seen + k_BLGK.shape[1],
    )


def distance_tables(module: nn.Module) -> jax.Array | None:
    """T5's scores of distances (n, buckets, H), a parameter of the stack that `module` is; None for other positions.

    There are n copies, one for each part of the batch that a device has: what they send back is summed over devices as
    tables, and of one table it would be as scores, L x S a head.
    """
    cfg = module.config.attention
    if not distance_table_params(module.config):
        return None
    table_NH = parameter(module, "distances", (cfg.buckets, cfg.heads), "buckets heads", Normal(0.02), "vector")
    return constrain(jnp.broadcast_to(table_NH, (ways("batch"), *table_NH.shape)), "batch buckets heads")


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
    return _flops(config, length, length * length)


def executed_flops(config: ModelConfig, length: int) -> int:
    """The same of the scores that the section's algorithm computes, without those computed again for a gradient."""
    cfg = config.attention
    return _flops(config, length, scores(cfg.algorithm, length, cfg.causal, cfg.window))


def _flops(config: ModelConfig, length: int, scores: int) -> int:
    cfg = config.attention
    product = 2 * scores * cfg.heads * cfg.head_dim
    if cfg.positions != "relative":
        return 2 * product
    return 3 * product + 2 * length * config.width * cfg.heads * cfg.head_dim


def whole_sequence(config: ModelConfig, length: int) -> Call:
    """What is asked of `attend` where a layer reads a sequence without padding, to train on it."""
    cfg = config.attention
    added = cfg.positions in ("relative", "buckets")
    return Call(length, length, cfg.head_dim, config.compute_dtype, cfg.causal, cfg.window, added=added)


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Cache of one layer for one sequence of `length` tokens."""
    return 2 * length * config.attention.kv_heads * config.attention.head_dim * bytes_per_value

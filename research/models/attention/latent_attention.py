"""Multi-head latent attention (DeepSeek-V2, sections 2.1.2 and 2.1.3; DeepSeek-V3): one short vector per token is kept.

Every head's key and value are projections of a token's normed latent vector; a separate key of a few rotary channels,
one for all heads, carries the position. A whole sequence is attended with keys and values written out. With a state
they never are: the projections move over to the query and to the output (section 2.1.2: absorbed), and attention runs
over the latents themselves, as over a single key-value head.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.attention.positions import rotary_angles, rotary_frequencies, rotate
from research.models.initialisers import NORMAL, NORMAL_OUT
from research.models.kernels.attention import Call, attend, scores
from research.models.kernels.attention_mask import Mask
from research.models.layers import RMSNorm, Shared, parameter, project, project_each
from research.sharding import constrain

RANK_NORM_EPSILON = 1e-6  # of the norms of the narrow vectors, whatever the model's: so in the released code


class LatentState(flax.struct.PyTreeNode):
    """Latents and rotated position keys seen so far, and how many: slots past `seen` are empty."""

    latents_BSR: jax.Array
    keys_BSK: jax.Array
    real_BS: jax.Array  # false where a slot holds padding
    seen: jax.Array  # int32 scalar


def init_state(config: ModelConfig, batch: int, max_length: int) -> LatentState:
    """An empty cache of `max_length` slots in the compute dtype."""
    cfg = config.latent_attention
    latents = jnp.zeros((batch, max_length, cfg.kv_rank), config.compute_dtype)
    keys = jnp.zeros((batch, max_length, cfg.rope_dim), config.compute_dtype)
    return LatentState(latents, keys, jnp.ones((batch, max_length), bool), jnp.zeros((), jnp.int32))


class LatentAttention(nn.Module):
    """softmax([q, q_rope] [k, k_rope]^T / sqrt(K + K_rope) + mask) v, with k and v linear in the token's latent."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: LatentState | None, shared: Shared
    ) -> tuple[jax.Array, LatentState | None, Shared]:
        cfg, D = self.config.latent_attention, self.config.width
        H, K, V, R = cfg.heads, cfg.head_dim, cfg.value_dim, cfg.kv_rank
        start = 0 if state is None else state.seen
        positions_L = start + jnp.arange(x_BLD.shape[1])
        frequencies = rotary_frequencies(cfg.rope_dim, cfg.rope_theta)
        angles = rotary_angles(positions_L[None], frequencies, jnp.promote_types(x_BLD.dtype, jnp.float32))
        q_BLHK, latents_BSR, keys_BSK = self._projected(x_BLD)
        q_BLHK, turned_BLHK = q_BLHK[..., :K], rotate(q_BLHK[..., K:], angles, cfg.rope_pairs)
        latents_BSR = RMSNorm(RANK_NORM_EPSILON, "rank", name="latent_norm")(latents_BSR)
        keys_BSK = rotate(keys_BSK[:, :, None], angles, cfg.rope_pairs)[:, :, 0]
        key_RHK = parameter(self, "key", (R, H, K), "rank heads head_dim", NORMAL, "hidden")
        value_RHV = parameter(self, "value", (R, H, V), "rank heads head_dim", NORMAL, "hidden")
        scale = (K + cfg.rope_dim) ** -0.5 * self.config.parametrisation.score_ratio(K)
        if state is None:
            mask = Mask(start=start, real_BS=shared.mask_BL)
            axes = "rank heads head_dim"
            k_BSHK, values = project_each(latents_BSR, (key_RHK, axes), (value_RHV, axes))
            shared_BSHK = jnp.broadcast_to(keys_BSK[:, :, None], (*k_BSHK.shape[:3], cfg.rope_dim))
            queries = jnp.concatenate([q_BLHK, turned_BLHK], axis=-1)
            keys = jnp.concatenate([k_BSHK, shared_BSHK], axis=-1)
            mixed_BLHV = attend(self.config, "latent_attention", queries, keys, values, mask, scale=scale)
        else:
            state = _append(state, latents_BSR, keys_BSK, shared.mask_BL)
            mask = Mask(start=start, real_BS=state.real_BS)
            absorbed_BLHR = jnp.einsum("blhk,rhk->blhr", q_BLHK, key_RHK.astype(q_BLHK.dtype))
            queries = jnp.concatenate([absorbed_BLHR, turned_BLHK], axis=-1)
            keys = jnp.concatenate([state.latents_BSR, state.keys_BSK], axis=-1)[:, :, None]
            values = state.latents_BSR[:, :, None]
            mixed_BLHR = attend(self.config, "latent_attention", queries, keys, values, mask, scale=scale)
            mixed_BLHV = jnp.einsum("blhr,rhv->blhv", mixed_BLHR, value_RHV.astype(mixed_BLHR.dtype))
        out_HVD = parameter(self, "out", (H, V, D), "heads head_dim width", NORMAL_OUT, "hidden", contracted=2)
        return project(mixed_BLHV, out_HVD, contracted=2), state, shared

    def _projected(self, x_BLD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries (B, L, H, K + K_rope), latents (B, L, R) and shared keys (B, L, K_rope), neither normed nor turned.

        Devices that split the heads compute a part each of what is narrow, and gather it.
        """
        cfg, D = self.config.latent_attention, self.config.width
        narrow, fixed = "width hidden", "width narrow"
        latent_DR = parameter(self, "latent", (D, cfg.kv_rank), narrow, NORMAL, "hidden")
        rope_DK = parameter(self, "rope_key", (D, cfg.rope_dim), fixed, NORMAL, "narrow")
        shape, axes, rank = (cfg.heads, cfg.head_dim + cfg.rope_dim), "heads head_dim", cfg.query_rank
        if rank is None:
            query = parameter(self, "query", (D, *shape), f"width {axes}", NORMAL, "hidden"), f"width {axes}"
        else:
            query = parameter(self, "query_down", (D, rank), narrow, NORMAL, "hidden"), narrow
        q, *of_all = project_each(x_BLD, query, (latent_DR, narrow), (rope_DK, fixed))
        if rank is not None:
            q_BLR = RMSNorm(RANK_NORM_EPSILON, "rank", name="query_norm")(constrain(q, "batch length"))
            q = project(q_BLR, parameter(self, "query", (rank, *shape), f"rank {axes}", NORMAL, "hidden"))
        latents_BLR, keys_BLK = (constrain(array, "batch length") for array in of_all)
        return constrain(q, "batch length heads head_dim"), latents_BLR, keys_BLK


def _append(state: LatentState, latents_BLR: jax.Array, keys_BLK: jax.Array, mask_BL: jax.Array | None) -> LatentState:
    at = (0, state.seen, 0)
    real_BS = state.real_BS if mask_BL is None else jax.lax.dynamic_update_slice(state.real_BS, mask_BL, at[:2])
    return LatentState(
        jax.lax.dynamic_update_slice(state.latents_BSR, latents_BLR, at),
        jax.lax.dynamic_update_slice(state.keys_BSK, keys_BLK, at),
        real_BS,
        state.seen + latents_BLR.shape[1],
    )


def params(config: ModelConfig) -> int:
    """Parameters of one layer: the matrices, and the gains over the narrow vectors."""
    cfg = config.latent_attention
    return matmul_params(config) + cfg.kv_rank + (cfg.query_rank or 0)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each token of a whole sequence is multiplied with."""
    cfg, D = config.latent_attention, config.width
    from_width, query = cfg.query_rank or D, cfg.heads * (cfg.head_dim + cfg.rope_dim)
    queries = from_width * query + (D * cfg.query_rank if cfg.query_rank else 0)
    latents = D * (cfg.kv_rank + cfg.rope_dim) + cfg.kv_rank * cfg.heads * (cfg.head_dim + cfg.value_dim)
    return queries + latents + cfg.heads * cfg.value_dim * D


def sequence_flops(config: ModelConfig, length: int) -> int:
    """Forward FLOPs of the two L x L products over one whole sequence, every score counted."""
    return _flops(config, length * length)


def executed_flops(config: ModelConfig, length: int) -> int:
    """The same of the scores that the section's algorithm computes, without those computed again for a gradient."""
    return _flops(config, scores(config.latent_attention.algorithm, length, causal=True, window=None))


def _flops(config: ModelConfig, scores: int) -> int:
    cfg = config.latent_attention
    return 2 * scores * cfg.heads * (cfg.head_dim + cfg.rope_dim + cfg.value_dim)


def whole_sequence(config: ModelConfig, length: int) -> Call:
    """What is asked of `attend` where a layer reads a sequence without padding, to train on it."""
    cfg = config.latent_attention
    return Call(length, length, max(cfg.head_dim + cfg.rope_dim, cfg.value_dim), config.compute_dtype)


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Cache of one layer for one sequence of `length` tokens: the latent and the position key of each."""
    return length * (config.latent_attention.kv_rank + config.latent_attention.rope_dim) * bytes_per_value

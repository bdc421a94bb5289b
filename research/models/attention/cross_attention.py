"""Attention of a decoder to what the encoder wrote (Vaswani 2017, section 3.2.3): no positions, no causal mask.

The encoder's output is there once, in Shared: when a whole target is read, or at the first step of decoding. Its keys
and values then stay in the decode state.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from research.config import ModelConfig
from research.models.attention.attention import score_scale, value_role
from research.models.initialisers import NORMAL, NORMAL_OUT
from research.models.kernels.attention import attend
from research.models.kernels.attention_mask import Mask
from research.models.layers import Shared, parameter, project, project_each
from research.sharding import constrain


class CrossState(flax.struct.PyTreeNode):
    """Keys and values of the source, and true at its real tokens."""

    keys_BSGK: jax.Array
    values_BSGK: jax.Array
    mask_BS: jax.Array


def init_state(config: ModelConfig, batch: int, max_length: int) -> CrossState:
    """Room for a source of `source_length` tokens, filled by the first step."""
    cfg, S = config.attention, config.source_length
    empty = jnp.zeros((batch, S, cfg.kv_heads, cfg.head_dim), config.compute_dtype)
    return CrossState(empty, empty, jnp.zeros((batch, S), bool))


class CrossAttention(nn.Module):
    """softmax(q k^T / sqrt(K) + mask) v, with queries from the target and keys and values from the source."""

    config: ModelConfig
    layer: int

    @nn.compact
    def __call__(
        self, x_BLD: jax.Array, state: CrossState | None, shared: Shared
    ) -> tuple[jax.Array, CrossState | None, Shared]:
        cfg, D = self.config.attention, self.config.width
        H, G, K = cfg.heads, cfg.kv_heads, cfg.head_dim
        query_DHK = parameter(self, "query", (D, H, K), "width heads head_dim", NORMAL, "hidden")
        key_DGK = parameter(self, "key", (D, G, K), "width kv_heads head_dim", NORMAL, value_role(cfg))
        value_DGK = parameter(self, "value", (D, G, K), "width kv_heads head_dim", NORMAL, value_role(cfg))
        out_HKD = parameter(self, "out", (H, K, D), "heads head_dim width", NORMAL_OUT, "hidden", contracted=2)
        if shared.source_BSD is not None:
            axes = "width kv_heads head_dim"
            keys_BSGK, values_BSGK = project_each(shared.source_BSD, (key_DGK, axes), (value_DGK, axes))
            read = CrossState(keys_BSGK, values_BSGK, shared.source_mask_BS)
        else:
            read = state
        q_BLHK = constrain(project(x_BLD, query_DHK), "batch length heads head_dim")
        mask = Mask(causal=False, real_BS=read.mask_BS, ends_early=True)
        scale = score_scale(self.config)
        mixed_BLHK = attend(self.config, "attention", q_BLHK, read.keys_BSGK, read.values_BSGK, mask, scale=scale)
        return project(mixed_BLHK, out_HKD, contracted=2), None if state is None else read, shared


def params(config: ModelConfig) -> int:
    """Parameters of one layer: four projections."""
    return config.width * config.attention.head_dim * 2 * (config.attention.heads + config.attention.kv_heads)


def matmul_params(config: ModelConfig) -> int:
    """Parameters each target token is multiplied with: queries and output."""
    return config.width * config.attention.head_dim * 2 * config.attention.heads


def sequence_flops(config: ModelConfig, length: int) -> int:
    """Keys and values of every source token, and both L x S products."""
    cfg, S = config.attention, config.source_length
    return 4 * S * config.width * cfg.kv_heads * cfg.head_dim + 4 * length * S * cfg.heads * cfg.head_dim


def state_bytes(config: ModelConfig, length: int, bytes_per_value: int) -> int:
    """Keys and values of one layer for one source."""
    return 2 * config.source_length * config.attention.kv_heads * config.attention.head_dim * bytes_per_value

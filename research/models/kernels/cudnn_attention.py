"""Attention by cuDNN's fused kernels, as jax.nn.dot_product_attention calls them: no scores are written to memory.

Grouped heads, causal masks, windows into the past, and padding after a sequence, which is told by its length. Of jax
0.10.2's sources (jax/_src/cudnn/fused_attention_stablehlo.py): bfloat16 or float16; heads of a multiple of 8 channels,
at most 128, and 256 from Hopper on, for which others are padded with zeros; no length that is split over devices.

Not proven where there is no GPU: that cuDNN takes what is handed over, its numbers and its speed. What is proven is the
call that is lowered for CUDA, forward and backward (tests/test_attention_kernels.py).
"""

import jax
import jax.numpy as jnp

from research.models.kernels.attention_mask import Mask

CHANNELS = 8  # a head's are a multiple of


def padded_channels(channels: int) -> int:
    """Channels of a head as cuDNN gets them."""
    return -(-channels // CHANNELS) * CHANNELS


def cudnn(q_BLHK: jax.Array, k_BSGK: jax.Array, v_BSGV: jax.Array, mask: Mask, scale: float) -> jax.Array:
    """softmax(scale q k^T) v, (B, L, H, V), of local arrays. Of keys and values the narrower are padded."""
    values = v_BSGV.shape[-1]
    width = padded_channels(max(q_BLHK.shape[-1], values))
    padded = (jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1]))) for x in (q_BLHK, k_BSGK, v_BSGV))
    lengths_B = None
    if mask.real_BS is not None:  # a sequence without any token has one to see, so that no row is without
        lengths_B = jnp.maximum(jnp.sum(mask.real_BS, axis=1, dtype=jnp.int32), 1)
    mixed_BLHV = jax.nn.dot_product_attention(
        *padded,
        scale=scale,
        is_causal=mask.causal,
        key_value_seq_lengths=lengths_B,
        local_window_size=None if mask.window is None else (mask.window - 1, 0),
        implementation="cudnn",
    )
    return mixed_BLHV[..., :values]

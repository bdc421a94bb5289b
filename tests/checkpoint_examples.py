"""One tiny model of every family of checkpoints, which says as much as the family can say."""

import numpy as np

from research.config import (
    AttentionConfig,
    LatentAttentionConfig,
    Mamba2Config,
    MambaConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RopeScaling,
    Rwkv4Config,
    Rwkv7Config,
)
from research.pretrained.tensors import shapes, unflatten

SMALL = {"vocab_size": 97, "width": 32, "depth": 4}
MULTI_HEAD = {**SMALL, "norm": "layer"}
EXAMPLES = {
    "deepseek_v3": ModelConfig(
        **SMALL,
        pattern="latent_attention:mlp | latent_attention:moe",
        latent_attention=LatentAttentionConfig(4, 6, 4, 10, 12, 14),
        mlp=MlpConfig(48),
        moe=MoeConfig(
            6, 3, 20, shared_experts=2, scores="sigmoid", gate_scale=2.5, groups=3, active_groups=2, bias_rate=1e-2
        ),
    ),
    "falcon": ModelConfig(
        **MULTI_HEAD,
        attention=AttentionConfig(4, 1, 8),
        mlp=MlpConfig(48, "gelu_exact"),
        parallel_mixers=True,
        shared_norm=True,
    ),
    "falcon_mamba": ModelConfig(**SMALL, pattern="mamba", mamba=MambaConfig(4, inner_norms="fixed")),
    "gpt2": ModelConfig(
        **MULTI_HEAD,
        attention=AttentionConfig(4, 4, 8, positions="none", biases="all"),
        mlp=MlpConfig(48, "gelu", biases=True),
        max_positions=16,
        tied_embeddings=True,
    ),
    "gpt_neox": ModelConfig(
        **MULTI_HEAD,
        attention=AttentionConfig(4, 4, 8, rope_fraction=0.25, biases="all"),
        mlp=MlpConfig(48, "gelu_exact", biases=True),
        parallel_mixers=True,
    ),
    "jamba": ModelConfig(
        **SMALL,
        pattern="mamba:moe, attention:mlp",
        attention=AttentionConfig(4, 2, 8, positions="none"),
        mlp=MlpConfig(48),
        moe=MoeConfig(3, 2, 48, renormalize=False, algorithm="ragged", balance_loss=0.0),
        mamba=MambaConfig(4, inner_norms="learned"),
        norm_epsilon=1e-6,
    ),
    "llama": ModelConfig(
        **SMALL, attention=AttentionConfig(4, 2, 8, rope_theta=5e5, rope_scaling=RopeScaling()), mlp=MlpConfig(48)
    ),
    "mamba": ModelConfig(**SMALL, pattern="mamba", mamba=MambaConfig(4, dt_rank=3, algorithm="sequential")),
    "mamba2": ModelConfig(**SMALL, pattern="mamba2", mamba2=Mamba2Config(4, head_dim=8, groups=2, chunk=16)),
    "mistral": ModelConfig(**SMALL, attention=AttentionConfig(4, 2, 8, window=5), mlp=MlpConfig(48)),
    "mixtral": ModelConfig(
        **SMALL, pattern="attention:moe", attention=AttentionConfig(4, 2, 8), moe=MoeConfig(3, 2, 20, balance_loss=0.5)
    ),
    "olmoe": ModelConfig(
        **SMALL,
        pattern="attention:moe",
        attention=AttentionConfig(4, 2, 8, qk_norm="full"),
        moe=MoeConfig(4, 3, 20, renormalize=False),
    ),
    "qwen3_moe": ModelConfig(
        **SMALL, pattern="attention:moe", attention=AttentionConfig(4, 2, 12, qk_norm="head"), moe=MoeConfig(4, 2, 20)
    ),
    "olmo2": ModelConfig(
        **SMALL, attention=AttentionConfig(4, 2, 8, qk_norm="full"), mlp=MlpConfig(48), norm_placement="post"
    ),
    "qwen2": ModelConfig(**SMALL, attention=AttentionConfig(4, 2, 8, biases="qkv"), mlp=MlpConfig(48)),
    "qwen3": ModelConfig(**SMALL, attention=AttentionConfig(4, 2, 12, qk_norm="head"), mlp=MlpConfig(48)),
    "rwkv": ModelConfig(
        **SMALL, pattern="rwkv4_time:rwkv4_channel", rwkv4=Rwkv4Config(2), norm="layer", embedding_norm=True
    ),
    "rwkv7": ModelConfig(
        **SMALL,
        pattern="rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
        rwkv7=Rwkv7Config(8, 2, 3, 4, 5, 6, chunk=8),
        norm="layer",
        embedding_norm=True,
    ),
}


def random_params(model):
    rng = np.random.default_rng(0)
    return unflatten(model, {path: rng.normal(size=size).astype(np.float32) for path, size in shapes(model).items()})

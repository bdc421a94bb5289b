"""One small model of each architecture, its settings such that every parameter that any of them may have is there."""

from research.config import (
    AttentionConfig,
    H3Config,
    HeadsConfig,
    LatentAttentionConfig,
    Mamba2Config,
    MambaConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    Rwkv7Config,
    S4Config,
)

WIDTH, DEPTH = 64, 2
MLP = MlpConfig(96)
MOE = MoeConfig(4, 2, 48, shared_experts=1, bias_rate=1e-3)
MAMBA2 = Mamba2Config(16, head_dim=16)


def _model(pattern: str, **sections) -> ModelConfig:
    source_length = 8 if "->" in pattern else None
    sections = {"mlp": MLP, "attention": AttentionConfig(4, 2, 16), "mamba2": MAMBA2} | sections
    return ModelConfig(50, WIDTH, DEPTH, pattern, source_length=source_length, **sections)


ARCHITECTURES = {
    "transformer": _model("attention:mlp"),
    "gpt": _model(
        "attention:mlp",
        attention=AttentionConfig(4, 4, 16, qk_norm="full", biases="all", positions="none"),
        mlp=MlpConfig(96, "gelu", biases=True),
        norm="layer",
        max_positions=16,
        tied_embeddings=True,
    ),
    "relative": _model("attention:mlp", attention=AttentionConfig(4, 4, 16, "relative"), embedding_norm=True),
    "buckets": _model("attention:mlp", attention=AttentionConfig(4, 4, 16, "buckets")),
    "multi_query": _model("attention:mlp", attention=AttentionConfig(4, 1, 16, qk_norm="head")),
    "latent": _model("latent_attention:mlp", latent_attention=LatentAttentionConfig(4, 16, 8, 16, 32, 24)),
    "moe": _model("attention:moe", moe=MOE),
    "mamba": _model("mamba", mamba=MambaConfig(inner_norms="learned")),
    "mamba2": _model("mamba2:mlp"),
    "lstm": _model("lstm:mlp"),
    "gru": _model("gru"),
    "s4": _model("s4:mlp", s4=S4Config(state_size=8, kernel_length=64)),
    "s4d": _model("s4", s4=S4Config("diagonal", 8)),
    "h3": _model("h3:mlp", h3=H3Config(4, 8)),
    "rwkv4": _model("rwkv4_time:rwkv4_channel"),
    "rwkv7": _model("rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel", rwkv7=Rwkv7Config(16)),
    "encoder_decoder": _model("attention:mlp -> attention, cross_attention:mlp"),
    "lstm_additive": _model("lstm -> lstm_additive"),
    "lstm_multiplicative": _model("lstm -> lstm_multiplicative"),
    "gru_additive": _model("gru -> gru_additive"),
    "gru_multiplicative": _model("gru -> gru_multiplicative"),
    "judged": _model("attention:mlp", heads=HeadsConfig(scalar=True, classes=3)),
    "scanned": _model("mamba2:moe", moe=MOE, scan_layers=True),
}

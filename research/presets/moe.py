"""Mixtral (Jiang 2024), OLMoE (Muennighoff 2024), DeepSeek-V3 (2024) and the routed Qwen3 (Yang 2025).

A token passes its routed experts, the shared ones, and everything else: routers, norms, embedding and head are active.
"""

from research.config import AttentionConfig, LatentAttentionConfig, MlpConfig, ModelConfig, MoeConfig
from research.presets.preset import Preset

MIXTRAL = "arXiv 2401.04088, Table 1; config.json of the released weights"
OLMOE = "arXiv 2409.02060, Table 1; config.json of the released weights"
DEEPSEEK_V3 = "arXiv 2412.19437, section 4.2; config.json of the released weights"
QWEN_3 = "arXiv 2505.09388, Table 2; config.json of the released weights"


def _routed(width: int, depth: int, vocab: int, attention: AttentionConfig, moe: MoeConfig, epsilon: float = 1e-5):
    return ModelConfig(
        vocab_size=vocab,
        width=width,
        depth=depth,
        pattern="attention:moe",
        attention=attention,
        moe=moe,
        norm_epsilon=epsilon,
        scan_layers=True,
    )


def _mixtral(width: int, depth: int, vocab: int, heads: int, hidden: int) -> ModelConfig:
    attention = AttentionConfig(heads, 8, width // heads, rope_theta=1e6)
    return _routed(width, depth, vocab, attention, MoeConfig(8, 2, hidden, balance_loss=0.001))


def _qwen3(width: int, depth: int, heads: int, hidden: int) -> ModelConfig:
    attention = AttentionConfig(heads, 4, 128, rope_theta=1e6, qk_norm="head")
    return _routed(width, depth, 151_936, attention, MoeConfig(128, 8, hidden, balance_loss=0.001), 1e-6)


def _olmoe() -> ModelConfig:
    attention = AttentionConfig(16, 16, 128, qk_norm="full")
    return _routed(2048, 16, 50_304, attention, MoeConfig(64, 8, 1024, renormalize=False))


def _deepseek_v3() -> ModelConfig:
    """The language model, without the module that predicts a second token and without scaled positions."""
    return ModelConfig(
        vocab_size=129_280,
        width=7168,
        depth=61,
        pattern="3 * latent_attention:mlp | latent_attention:moe",
        latent_attention=LatentAttentionConfig(128, 128, 64, 128, 512, 1536),
        mlp=MlpConfig(18_432),
        moe=MoeConfig(
            256,
            8,
            2048,
            shared_experts=1,
            scores="sigmoid",
            gate_scale=2.5,
            groups=8,
            active_groups=4,
            balance_loss=0.0001,
            balance_over="sequence",
            router_z_loss=0.0,
            bias_rate=0.001,
        ),
        norm_epsilon=1e-6,
        scan_layers=True,
    )


PRESETS = {
    "mixtral-8x7b": Preset(_mixtral(4096, 32, 32_000, 32, 14_336), 46_702_792_704, "46.7B", MIXTRAL, 12_879_925_248),
    "mixtral-8x22b": Preset(_mixtral(6144, 56, 32_768, 48, 16_384), 140_630_071_296, "141B", MIXTRAL, 39_161_468_928),
    "olmoe-1b-7b": Preset(_olmoe(), 6_919_161_856, "6.9B", OLMOE, 1_282_017_280),
    "deepseek-v3": Preset(_deepseek_v3(), 671_026_404_352, "671B", DEEPSEEK_V3, 37_552_282_624),
    "qwen3-30b-a3b": Preset(_qwen3(2048, 48, 32, 768), 30_532_122_624, "30.5B", QWEN_3, 3_353_032_704),
    "qwen3-235b-a22b": Preset(_qwen3(4096, 94, 64, 1536), 235_093_634_560, "235B", QWEN_3, 22_190_763_520),
}

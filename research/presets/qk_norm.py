"""Transformers that norm queries and keys: OLMo 2 (Walsh 2024) all heads together, Qwen3 (Yang 2025) each head."""

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.presets.preset import Preset

OLMO_2 = "arXiv 2501.00656, Table 3; config.json of the released weights"
QWEN_3 = "arXiv 2505.09388, Table 1; config.json of the released weights"


def _olmo2(width: int, depth: int, heads: int, hidden: int, kv_heads: int | None = None) -> ModelConfig:
    return ModelConfig(
        vocab_size=100_352,
        width=width,
        depth=depth,
        attention=AttentionConfig(heads, kv_heads or heads, width // heads, rope_theta=5e5, qk_norm="full"),
        mlp=MlpConfig(hidden),
        norm_epsilon=1e-6,
        norm_placement="post",
        scan_layers=True,
    )


def _qwen3(width: int, depth: int, heads: int, hidden: int, tied: bool = False) -> ModelConfig:
    return ModelConfig(
        vocab_size=151_936,
        width=width,
        depth=depth,
        attention=AttentionConfig(heads, 8, 128, rope_theta=1e6, qk_norm="head"),
        mlp=MlpConfig(hidden),
        norm_epsilon=1e-6,
        tied_embeddings=tied,
        scan_layers=True,
    )


PRESETS = {
    "olmo2-1b": Preset(_olmo2(2048, 16, 16, 8192), 1_484_916_736, "1.48B", OLMO_2),
    "olmo2-7b": Preset(_olmo2(4096, 32, 32, 11_008), 7_298_617_344, "7.3B", OLMO_2),
    "olmo2-13b": Preset(_olmo2(5120, 40, 40, 13_824), 13_716_198_400, "13.7B", OLMO_2),
    "olmo2-32b": Preset(_olmo2(5120, 64, 40, 27_648, 8), 32_234_279_936, "32.2B", OLMO_2),
    "qwen3-0.6b": Preset(_qwen3(1024, 28, 16, 3072, True), 596_049_920, "0.6B", QWEN_3),
    "qwen3-1.7b": Preset(_qwen3(2048, 28, 16, 6144, True), 1_720_574_976, "1.7B", QWEN_3),
    "qwen3-4b": Preset(_qwen3(2560, 36, 32, 9728, True), 4_022_468_096, "4.0B", QWEN_3),
    "qwen3-8b": Preset(_qwen3(4096, 36, 32, 12_288), 8_190_735_360, "8.2B", QWEN_3),
    "qwen3-14b": Preset(_qwen3(5120, 40, 40, 17_408), 14_768_307_200, "14.8B", QWEN_3),
    "qwen3-32b": Preset(_qwen3(5120, 64, 64, 25_600), 32_762_123_264, "32.8B", QWEN_3),
}

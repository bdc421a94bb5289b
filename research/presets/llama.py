"""Llama 1 and 2 (Touvron 2023a, b), Llama 3, 3.1 and 3.2 (Grattafiori 2024), Mistral (Jiang 2023)."""

from research.config import AttentionConfig, MlpConfig, ModelConfig, RopeScaling
from research.presets.preset import Preset

LLAMA_1 = "arXiv 2302.13971, Table 2; config.json of the released weights"
LLAMA_2 = "arXiv 2307.09288, section 2.2; config.json of the released weights"
LLAMA_3 = "arXiv 2407.21783, Table 3; config.json of the released weights"
MISTRAL = "arXiv 2310.06825, Table 1; config.json of the released weights"


def _llama(
    width: int, depth: int, heads: int, hidden: int, kv_heads: int | None = None, vocab: int = 32_000,
    theta: float = 1e4, tied: bool = False, epsilon: float = 1e-5, scaling: RopeScaling | None = None,
    window: int | None = None,
) -> ModelConfig:  # fmt: skip
    cfg = AttentionConfig(
        heads, kv_heads or heads, width // heads, rope_theta=theta, rope_scaling=scaling, window=window
    )
    return ModelConfig(
        vocab_size=vocab,
        width=width,
        depth=depth,
        attention=cfg,
        mlp=MlpConfig(hidden),
        norm_epsilon=epsilon,
        tied_embeddings=tied,
        scan_layers=True,
    )


def _llama3(
    width: int, depth: int, heads: int, hidden: int, tied: bool = False, scaling: RopeScaling | None = None
) -> ModelConfig:
    return _llama(width, depth, heads, hidden, 8, 128_256, 5e5, tied, scaling=scaling)


STRETCHED = RopeScaling(8.0)  # Llama 3.1: 8,192 tokens to 131,072
STRETCHED_SMALL = RopeScaling(32.0)  # Llama 3.2

PRESETS = {
    "llama1-7b": Preset(_llama(4096, 32, 32, 11_008, epsilon=1e-6), 6_738_415_616, "6.7B", LLAMA_1),
    "llama1-13b": Preset(_llama(5120, 40, 40, 13_824, epsilon=1e-6), 13_015_864_320, "13.0B", LLAMA_1),
    "llama1-33b": Preset(_llama(6656, 60, 52, 17_920, epsilon=1e-6), 32_528_943_616, "32.5B", LLAMA_1),
    "llama1-65b": Preset(_llama(8192, 80, 64, 22_016), 65_285_660_672, "65.2B", LLAMA_1),
    "llama2-7b": Preset(_llama(4096, 32, 32, 11_008), 6_738_415_616, "6.7B", LLAMA_2),
    "llama2-13b": Preset(_llama(5120, 40, 40, 13_824), 13_015_864_320, "13.0B", LLAMA_2),
    "llama2-70b": Preset(_llama(8192, 80, 64, 28_672, 8), 68_976_648_192, "69.0B", LLAMA_2),
    "llama3-8b": Preset(_llama3(4096, 32, 32, 14_336), 8_030_261_248, "8.03B", LLAMA_3),
    "llama3-70b": Preset(_llama3(8192, 80, 64, 28_672), 70_553_706_496, "70.6B", LLAMA_3),
    "llama3.1-8b": Preset(_llama3(4096, 32, 32, 14_336, scaling=STRETCHED), 8_030_261_248, "8.03B", LLAMA_3),
    "llama3.1-70b": Preset(_llama3(8192, 80, 64, 28_672, scaling=STRETCHED), 70_553_706_496, "70.6B", LLAMA_3),
    "llama3.1-405b": Preset(_llama3(16_384, 126, 128, 53_248, scaling=STRETCHED), 405_853_388_800, "405B", LLAMA_3),
    "llama3.2-1b": Preset(_llama3(2048, 16, 32, 8192, True, STRETCHED_SMALL), 1_235_814_400, "1.23B", LLAMA_3),
    "llama3.2-3b": Preset(_llama3(3072, 28, 24, 8192, True, STRETCHED_SMALL), 3_212_749_824, "3.21B", LLAMA_3),
    "mistral-7b": Preset(_llama(4096, 32, 32, 14_336, 8, window=4096), 7_241_732_096, "7.24B", MISTRAL),
}

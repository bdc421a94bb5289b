"""Mamba (Gu & Dao 2023), FalconMamba (Zuo 2024) and Mamba-2 (Dao & Gu 2024)."""

from research.config import MambaConfig, ModelConfig
from research.presets.preset import Preset

MAMBA = "arXiv 2312.00752; names and config.json of the released weights, vocabulary padded to 50,280"
MAMBA_2 = "arXiv 2405.21060; names and config.json of the released weights, vocabulary padded to 50,288"
FALCON_MAMBA = "arXiv 2410.05355; name and config.json of the released weights"


def _mamba(width: int, depth: int, pattern: str = "mamba", vocab: int = 50_280) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab, width=width, depth=depth, pattern=pattern, tied_embeddings=True, scan_layers=True
    )


def _mamba2(width: int, depth: int) -> ModelConfig:
    return _mamba(width, depth, "mamba2", 50_288)


def _falcon_mamba() -> ModelConfig:
    return ModelConfig(
        vocab_size=65_024,
        width=4096,
        depth=64,
        pattern="mamba",
        mamba=MambaConfig(inner_norms="fixed"),
        scan_layers=True,
    )


PRESETS = {
    "mamba-130m": Preset(_mamba(768, 24), 129_135_360, "130M", MAMBA),
    "mamba-370m": Preset(_mamba(1024, 48), 371_516_416, "370M", MAMBA),
    "mamba-790m": Preset(_mamba(1536, 48), 793_204_224, "790M", MAMBA),
    "mamba-1.4b": Preset(_mamba(2048, 48), 1_372_178_432, "1.4B", MAMBA),
    "mamba-2.8b": Preset(_mamba(2560, 64), 2_768_345_600, "2.8B", MAMBA),
    "falcon-mamba-7b": Preset(_falcon_mamba(), 7_272_665_088, "7B", FALCON_MAMBA),
    "mamba2-130m": Preset(_mamba2(768, 24), 128_989_632, "130M", MAMBA_2),
    "mamba2-370m": Preset(_mamba2(1024, 48), 368_346_624, "370M", MAMBA_2),
    "mamba2-780m": Preset(_mamba2(1536, 48), 780_161_280, "780M", MAMBA_2),
    "mamba2-1.3b": Preset(_mamba2(2048, 48), 1_343_757_312, "1.3B", MAMBA_2),
    "mamba2-2.7b": Preset(_mamba2(2560, 64), 2_702_599_680, "2.7B", MAMBA_2),
}

"""RWKV-4 (Peng 2023)."""

from research.model_config import ModelConfig
from research.presets.preset import Preset

RWKV_4 = "arXiv 2305.13048, Table 2; config.json of the released weights"


def _rwkv4(width: int, depth: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=50_277,
        width=width,
        depth=depth,
        pattern="rwkv4_time:rwkv4_channel",
        norm="layer",
        embedding_norm=True,
        scan_layers=True,
    )


PRESETS = {
    "rwkv4-169m": Preset(_rwkv4(768, 12), 169_342_464, "169.3M", RWKV_4),
    "rwkv4-430m": Preset(_rwkv4(1024, 24), 430_397_440, "430.4M", RWKV_4),
    "rwkv4-1.5b": Preset(_rwkv4(2048, 24), 1_515_106_304, "1.515B", RWKV_4),
    "rwkv4-3b": Preset(_rwkv4(2560, 32), 2_984_627_200, "2.985B", RWKV_4),
    "rwkv4-7b": Preset(_rwkv4(4096, 32), 7_392_649_216, "7.393B", RWKV_4),
    "rwkv4-14b": Preset(_rwkv4(5120, 40), 14_148_597_760, "14.15B", RWKV_4),
}

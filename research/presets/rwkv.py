"""RWKV-4 (Peng 2023) and RWKV-7 (Peng 2025)."""

from research.config import ModelConfig, Rwkv7Config
from research.presets.preset import Preset

RWKV_4 = "arXiv 2305.13048, Table 2; config.json of the released weights"
RWKV_7 = "arXiv 2503.14456, section 7 and appendix; shapes of the released weights"

PILE = 50_304  # rows of the embedding of RWKV-7 models trained on the Pile


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


def _rwkv7(width: int, depth: int, vocab: int = 65_536, **ranks: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        width=width,
        depth=depth,
        pattern="rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
        rwkv7=Rwkv7Config(**ranks),
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
    "rwkv7-pile-168m": Preset(_rwkv7(768, 12, PILE), 167_638_272, "168M", RWKV_7),
    "rwkv7-pile-421m": Preset(_rwkv7(1024, 24, PILE, value_rank=64, gate_rank=128), 421_080_064, "421M", RWKV_7),
    "rwkv7-pile-1.47b": Preset(_rwkv7(2048, 24, PILE), 1_465_014_272, "1.47B", RWKV_7),
    "rwkv7-world-0.1b": Preset(_rwkv7(768, 12), 191_034_624, "191M", RWKV_7),
    "rwkv7-world-0.4b": Preset(_rwkv7(1024, 24, gate_rank=128), 450_767_872, "450M", RWKV_7),
    "rwkv7-world-1.5b": Preset(_rwkv7(2048, 24), 1_527_404_544, "1.52B", RWKV_7),
    "rwkv7-world-2.9b": Preset(_rwkv7(2560, 32), 2_947_735_040, "2.9B", RWKV_7),
}

"""GPT-2 (Radford 2019), GPT-3 (Brown 2020), GPT-NeoX (Black 2022) and Pythia (Biderman 2023), Falcon and PaLM.

Two rows of GPT-3's Table 2.1 contradict themselves, and follow here the totals of its Table D.1: at 1.3B, 24 heads of
128 channels are more than the width of 2048 (16 heads are it), and at 13B the width of 5140 is not 40 heads of 128
(5120 is). The expected numbers of GPT-3 are V d + 2048 d + L (12 d^2 + 13 d) + 2 d; those of PaLM the matrices it
describes and one norm per layer.
"""

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.presets.preset import Preset

GPT_2 = "Radford 2019, Table 2; the released weights (whose counts the paper's table misprints)"
GPT_3 = "arXiv 2005.14165, Tables 2.1 and D.1"
NEOX = "arXiv 2204.06745, section 2.1; config.json of the released weights"
PYTHIA = "arXiv 2304.01373, Table 1; config.json of the released weights"
FALCON = "arXiv 2311.16867; config.json of the released weights"
PALM = "arXiv 2204.02311, Table 1"


def _gpt(width: int, depth: int, heads: int, positions: int = 1024) -> ModelConfig:
    return ModelConfig(
        vocab_size=50_257,
        width=width,
        depth=depth,
        attention=AttentionConfig(heads, heads, width // heads, positions="none", biases="all"),
        mlp=MlpConfig(4 * width, "gelu", biases=True),
        norm="layer",
        max_positions=positions,
        tied_embeddings=True,
        scan_layers=True,
    )


def _gpt3(width: int, depth: int, heads: int) -> ModelConfig:
    return _gpt(width, depth, heads, 2048)


def _neox(width: int, depth: int, heads: int, vocab: int = 50_304) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        width=width,
        depth=depth,
        attention=AttentionConfig(heads, heads, width // heads, rope_fraction=0.25, biases="all"),
        mlp=MlpConfig(4 * width, "gelu_exact", biases=True),
        norm="layer",
        parallel_mixers=True,
        scan_layers=True,
    )


def _multi_query(
    vocab: int, width: int, depth: int, heads: int, head_dim: int, activation: str, norm: str
) -> ModelConfig:
    """Both mixers read one norm, and all heads one key and value."""
    return ModelConfig(
        vocab_size=vocab,
        width=width,
        depth=depth,
        attention=AttentionConfig(heads, 1, head_dim),
        mlp=MlpConfig(4 * width, activation),
        norm=norm,
        parallel_mixers=True,
        shared_norm=True,
        tied_embeddings=True,
        scan_layers=True,
    )


def _palm(width: int, depth: int, heads: int) -> ModelConfig:
    return _multi_query(256_000, width, depth, heads, 256, "swiglu", "layer_unbiased")


PRESETS = {
    "gpt2-124m": Preset(_gpt(768, 12, 12), 124_439_808, "124M", GPT_2),
    "gpt2-355m": Preset(_gpt(1024, 24, 16), 354_823_168, "355M", GPT_2),
    "gpt2-774m": Preset(_gpt(1280, 36, 20), 774_030_080, "774M", GPT_2),
    "gpt2-1.5b": Preset(_gpt(1600, 48, 25), 1_557_611_200, "1558M", GPT_2),
    "gpt3-125m": Preset(_gpt3(768, 12, 12), 125_226_240, "125M", GPT_3),
    "gpt3-350m": Preset(_gpt3(1024, 24, 16), 355_871_744, "356M", GPT_3),
    "gpt3-760m": Preset(_gpt3(1536, 24, 16), 760_300_032, "760M", GPT_3),
    "gpt3-1.3b": Preset(_gpt3(2048, 24, 16), 1_315_723_264, "1,320M", GPT_3),
    "gpt3-2.7b": Preset(_gpt3(2560, 32, 32), 2_651_553_280, "2,650M", GPT_3),
    "gpt3-6.7b": Preset(_gpt3(4096, 32, 32), 6_658_404_352, "6,660M", GPT_3),
    "gpt3-13b": Preset(_gpt3(5120, 40, 40), 12_853_386_240, "12,850M", GPT_3),
    "gpt3-175b": Preset(_gpt3(12_288, 96, 96), 174_604_259_328, "174,600M", GPT_3),
    "gpt-neox-20b": Preset(_neox(6144, 44, 64, 50_432), 20_554_567_680, "20B", NEOX),
    "pythia-70m": Preset(_neox(512, 6, 8), 70_426_624, "70,426,624", PYTHIA),
    "pythia-160m": Preset(_neox(768, 12, 12), 162_322_944, "162,322,944", PYTHIA),
    "pythia-410m": Preset(_neox(1024, 24, 16), 405_334_016, "405,334,016", PYTHIA),
    "pythia-1b": Preset(_neox(2048, 16, 8), 1_011_781_632, "1,011,781,632", PYTHIA),
    "pythia-1.4b": Preset(_neox(2048, 24, 16), 1_414_647_808, "1,414,647,808", PYTHIA),
    "pythia-2.8b": Preset(_neox(2560, 32, 32), 2_775_208_960, "2,775,208,960", PYTHIA),
    "pythia-6.9b": Preset(_neox(4096, 32, 32, 50_432), 6_857_302_016, "6,857,302,016", PYTHIA),
    "pythia-12b": Preset(_neox(5120, 36, 40, 50_688), 11_846_072_320, "11,846,072,320", PYTHIA),
    "falcon-7b": Preset(_multi_query(65_024, 4544, 32, 71, 64, "gelu_exact", "layer"), 6_921_720_704, "7B", FALCON),
    "palm-8b": Preset(_palm(4096, 32, 16), 8_632_012_800, "8.63B", PALM),
    "palm-62b": Preset(_palm(8192, 64, 32), 62_495_662_080, "62.50B", PALM),
    "palm-540b": Preset(_palm(18_432, 118, 48), 540_356_474_880, "540.35B", PALM),
}

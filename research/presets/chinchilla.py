"""The 50 models of Chinchilla's Table A9, Chinchilla itself (Hoffmann 2022) and Gopher (Rae 2021).

Relative positions as in Transformer-XL are what makes these counts come out: with them a layer has five matrices of
width x heads x channels, with four every row is 5 to 8 % short. The expected numbers are that formula,

    32000 d + L (5 d h k + 2 d f) + (2 L + 1) d + 2 L h k,

matrices, norm gains, and the two biases a head has for content and distance. It misses the table's rounded numbers by
0.76 % at worst and 0.09 % on average (tests/test_presets.py).
"""

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.presets.preset import Preset

CHINCHILLA = "arXiv 2203.15556, Table 4"
TABLE_A9 = "arXiv 2203.15556, Table A9"
GOPHER = "arXiv 2112.11446, Table 1"

# fmt: off
ROWS = (  # millions of parameters as printed, width, hidden, channels of a head, heads, layers
    (44, 512, 2048, 64, 8, 8),
    (57, 576, 2304, 64, 9, 9),
    (74, 640, 2560, 64, 10, 10),
    (90, 640, 2560, 64, 10, 13),
    (106, 640, 2560, 64, 10, 16),
    (117, 768, 3072, 64, 12, 12),
    (140, 768, 3072, 64, 12, 15),
    (163, 768, 3072, 64, 12, 18),
    (175, 896, 3584, 64, 14, 14),
    (196, 896, 3584, 64, 14, 16),
    (217, 896, 3584, 64, 14, 18),
    (251, 1024, 4096, 64, 16, 16),
    (278, 1024, 4096, 64, 16, 18),
    (306, 1024, 4096, 64, 16, 20),
    (425, 1280, 5120, 128, 10, 18),
    (489, 1280, 5120, 128, 10, 21),
    (509, 1408, 5632, 128, 11, 18),
    (552, 1280, 5120, 128, 10, 24),
    (587, 1408, 5632, 128, 11, 21),
    (632, 1536, 6144, 128, 12, 19),
    (664, 1408, 5632, 128, 11, 24),
    (724, 1536, 6144, 128, 12, 22),
    (816, 1536, 6144, 128, 12, 25),
    (893, 1792, 7168, 128, 14, 20),
    (1018, 1792, 7168, 128, 14, 23),
    (1143, 1792, 7168, 128, 14, 26),
    (1266, 2048, 8192, 128, 16, 22),
    (1424, 2176, 8704, 128, 17, 22),
    (1429, 2048, 8192, 128, 16, 25),
    (1593, 2048, 8192, 128, 16, 28),
    (1609, 2176, 8704, 128, 17, 25),
    (1731, 2304, 9216, 128, 18, 24),
    (1794, 2176, 8704, 128, 17, 28),
    (2007, 2304, 9216, 128, 18, 28),
    (2283, 2304, 9216, 128, 18, 32),
    (2298, 2560, 10240, 128, 20, 26),
    (2639, 2560, 10240, 128, 20, 30),
    (2980, 2560, 10240, 128, 20, 34),
    (3530, 2688, 10752, 128, 22, 36),
    (3802, 2816, 11264, 128, 22, 36),
    (4084, 2944, 11776, 128, 22, 36),
    (4516, 3072, 12288, 128, 24, 36),
    (6796, 3584, 14336, 128, 28, 40),
    (9293, 4096, 16384, 128, 32, 42),
    (11452, 4352, 17408, 128, 32, 47),
    (12295, 4608, 18432, 128, 36, 44),
    (12569, 4608, 18432, 128, 32, 47),
    (13735, 4864, 19456, 128, 32, 47),
    (14940, 4992, 19968, 128, 32, 49),
    (16183, 5120, 20480, 128, 40, 47),
)
# fmt: on


def _relative(width: int, hidden: int, head_dim: int, heads: int, depth: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=32_000,
        width=width,
        depth=depth,
        attention=AttentionConfig(heads, heads, head_dim, positions="relative"),
        mlp=MlpConfig(hidden, "gelu"),
        tied_embeddings=True,
        scan_layers=True,
    )


def _formula(width: int, hidden: int, head_dim: int, heads: int, depth: int) -> int:
    matrices = depth * (5 * width * heads * head_dim + 2 * width * hidden)
    return 32_000 * width + matrices + (2 * depth + 1) * width + 2 * depth * heads * head_dim


def _preset(published: str, source: str, *dimensions: int) -> Preset:
    return Preset(_relative(*dimensions), _formula(*dimensions), published, source)


TABLE_A9_PRESETS = {
    f"chinchilla-table-a9-{millions}m": _preset(f"{millions}M", TABLE_A9, *dimensions) for millions, *dimensions in ROWS
}
PRESETS = {
    **TABLE_A9_PRESETS,
    "chinchilla-70b": _preset("70B", CHINCHILLA, 8192, 32_768, 128, 64, 80),
    "gopher-280b": _preset("280B", GOPHER, 16_384, 65_536, 128, 128, 80),
}

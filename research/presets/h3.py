"""H3 (Fu 2023) as released: hybrids of H3 layers and a few of attention.

Only the 125M model's count is printed by its repository; the names of the larger ones are no counts of what it builds.
"""

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.presets.preset import Preset

H3 = "HazyResearch/H3: README.md (the example's output) and examples/generate_text_h3.py; vocabulary padded to 50,264"


def _h3(width: int, depth: int, heads: int, pattern: str) -> ModelConfig:
    return ModelConfig(
        vocab_size=50_264,
        width=width,
        depth=depth,
        pattern=pattern,
        attention=AttentionConfig(heads, heads, width // heads, biases="all"),
        mlp=MlpConfig(4 * width, "gelu", biases=True),
        norm="layer",
        tied_embeddings=True,
        scan_layers=True,
    )


PRESETS = {
    "h3-125m": Preset(_h3(768, 12, 12, "6 * h3:mlp, attention:mlp | h3:mlp"), 126_387_456, "126,387,456", H3),
}

"""Jamba (Lieber 2024) and Jamba 1.5 (Jamba team 2024): attention in one layer of eight, experts in every second."""

from research.config import AttentionConfig, MambaConfig, MlpConfig, ModelConfig, MoeConfig
from research.presets.preset import Preset

JAMBA = "arXiv 2403.19887; config.json of the released weights"
JAMBA_1_5 = "arXiv 2408.12570; config.json of the released weights"
PERIOD = "mamba:mlp, mamba:moe, mamba:mlp, mamba:moe, attention:mlp, mamba:moe, mamba:mlp, mamba:moe"


def _jamba(width: int, depth: int, heads: int, hidden: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=65_536,
        width=width,
        depth=depth,
        pattern=PERIOD,
        attention=AttentionConfig(heads, 8, width // heads, positions="none"),
        mlp=MlpConfig(hidden),
        moe=MoeConfig(16, 2, hidden, renormalize=False),
        mamba=MambaConfig(inner_norms="learned"),
        norm_epsilon=1e-6,
        scan_layers=True,
    )


PRESETS = {
    "jamba-v0.1": Preset(_jamba(4096, 32, 32, 14_336), 51_570_323_328, "52B", JAMBA, 12_110_311_296),
    "jamba-1.5-large": Preset(_jamba(8192, 72, 64, 24_576), 398_555_145_696, "398B", JAMBA_1_5, 94_149_338_592),
}

"""The base run's rate times a power of the width."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = base rate * (width / base width)^exponent."""
    if scale.base_rate is None or scale.width_ratio is None:
        return Settings()
    return Settings(learning_rate=scale.base_rate * scale.width_ratio ** constants["exponent"])


WIDTH_POWER = Rule(
    formula="learning_rate = base rate * (width / base width)^exponent",
    source="exponent -1/2 as in Vaswani et al. 2017, arXiv:1706.03762, equation 3; -1 as of a hidden matrix in Yang et "
    "al. 2022, arXiv:2203.03466, Table 3",
    settings=_settings,
    constants=("exponent",),
    relative=True,
)

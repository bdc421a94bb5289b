"""The base run's rate after a warm-up over the same number of tokens, whatever the size and the length of the run."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """Both None outside of a plan: a warm-up says nothing without the rate that it leads to."""
    if scale.base_rate is None:
        return Settings()
    return Settings(learning_rate=scale.base_rate, warmup_tokens=constants["warmup_tokens"])


FIXED_WARMUP = Rule(
    formula="learning_rate = base rate, after a warm-up over the same number of tokens in all runs",
    source="as the 3,000 steps of all runs of Kaplan et al. 2020, arXiv:2001.08361, section 2.2, which Porian et al. "
    "2024, arXiv:2406.19146, find too long for small models",
    settings=_settings,
    constants=("warmup_tokens",),
    parametrisations="any",
    relative=True,
)

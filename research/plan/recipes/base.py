"""The base run's own settings at every size."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = the base run's."""
    return Settings(learning_rate=scale.base_rate)


BASE = Rule(
    formula="learning_rate = the base run's",
    source="none: what a plan does that names no recipe",
    settings=_settings,
    parametrisations="any",
    relative=True,
)

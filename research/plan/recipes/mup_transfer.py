"""The base run's rate at every size, which a parametrisation makes the right one by scaling the model itself."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = the base run's; research/optim/parametrisation.py scales each parameter's own rate from it."""
    return Settings(learning_rate=scale.base_rate)


MUP_TRANSFER = Rule(
    formula="learning_rate = the base run's, under a parametrisation that transfers it (model.parametrisation.name)",
    source="Yang et al. 2022, arXiv:2203.03466 (Tensor Programs V), section 4",
    settings=_settings,
    parametrisations="scaled",
    relative=True,
)

"""The power laws in size of Porian et al. 2024."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings

SEQUENCE_LENGTH = 2048  # of their runs


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = 3.7 N^-0.36; batch = 0.00037 N^0.703 sequences of 2,048 tokens; warm-up over N tokens.

    N counts the head and not the table of tokens. Fitted to the interpolated optima of sweeps at 20 tokens a param,
    without decay of the rate. The main runs rounded the exponents to -1/3 and 2/3.
    """
    params = scale.head_params
    return Settings(
        learning_rate=3.7 * params**-0.36,
        batch_tokens=0.00037 * SEQUENCE_LENGTH * params**0.703,
        warmup_tokens=params,
    )


PORIAN = Rule(
    formula="learning_rate = 3.7 N^-0.36; batch = 0.758 N^0.703 tokens, N params with the head and without the table",
    source="Porian et al. 2024, arXiv:2406.19146, the fits of the hyperparameter sweep",
    settings=_settings,
    ranges={"head_params": (2.5e7, 1.1e8)},
)

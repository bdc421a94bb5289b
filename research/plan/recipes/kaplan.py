"""The peak rate by size of Kaplan et al. 2020."""

import math
from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings

BATCH_TOKENS = 512 * 1024.0  # 512 sequences of 1,024
WARMUP_STEPS = 3000


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = 0.003239 - 0.0001395 ln N (equation D.1), N non-embedding params; none where that is not above 0.

    The batch and the warm-up, in steps of the run's own batch, are those of all their runs (section 2.2).
    """
    rate = 0.003239 - 0.0001395 * math.log(scale.non_embedding_params)
    return Settings(
        learning_rate=rate if rate > 0 else None,
        batch_tokens=BATCH_TOKENS,
        warmup_tokens=WARMUP_STEPS * (scale.batch_tokens or BATCH_TOKENS),
    )


KAPLAN = Rule(
    formula="learning_rate = 0.003239 - 0.0001395 ln N, N non-embedding params; batch 524,288 tokens",
    source="Kaplan et al. 2020, arXiv:2001.08361, equation D.1 and section 2.2",
    settings=_settings,
    ranges={"non_embedding_params": (768.0, 1.5e9)},
)

"""The power laws in compute of DeepSeek LLM."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings

WARMUP_STEPS = 2000


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = 0.3118 C^-0.1250; batch = 0.2920 C^0.3271 tokens (equation 1).

    C = M D is training compute in FLOPs, D tokens, M non-embedding FLOPs a token, attention's among them (equation 2).
    Weight decay, beta2 and the warm-up, in steps of the run's own batch, are those of all their runs (section 2.3).
    """
    compute = scale.non_embedding_flops
    batch = 0.2920 * compute**0.3271
    return Settings(
        learning_rate=0.3118 * compute**-0.1250,
        batch_tokens=batch,
        weight_decay=0.1,
        beta2=0.95,
        warmup_tokens=WARMUP_STEPS * (scale.batch_tokens or batch),
    )


DEEPSEEK = Rule(
    formula="learning_rate = 0.3118 C^-0.1250; batch = 0.2920 C^0.3271 tokens, C = non-embedding FLOPs per token * D",
    source="DeepSeek-AI 2024, arXiv:2401.02954, equations 1 and 2, section 2.3",
    settings=_settings,
    ranges={"non_embedding_flops": (1e17, 2e19)},
)

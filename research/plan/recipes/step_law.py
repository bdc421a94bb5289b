"""Step Law: power laws in size and tokens."""

from collections.abc import Mapping

from research.plan.recipes.definition import Rule, Scale, Settings

WARMUP_STEPS = 2000
# (non-embedding params, tokens) of the sweeps of dense models that the authors published (github.com/step-law/steplaw).
# Which of them the law was fitted to they do not say with it: all are taken as seen.
CELLS = (
    (214_663_680, 4.0e9), (214_663_680, 1.14e10), (214_663_680, 2.0e10), (214_663_680, 1.0e11),
    (268_304_384, 5.0e9), (268_304_384, 1.42e10), (268_304_384, 2.5e10), (268_304_384, 8.0e10),
    (429_260_800, 8.0e9), (429_260_800, 2.27e10), (429_260_800, 4.0e10), (429_260_800, 5.0e10),
    (536_872_960, 1.0e10), (536_872_960, 2.84e10), (536_872_960, 5.0e10),
    (1_073_741_824, 2.0e10), (1_073_741_824, 5.69e10),
)  # fmt: skip


def _settings(scale: Scale, constants: Mapping[str, float]) -> Settings:
    """learning_rate = 1.79 N^-0.713 D^0.307; batch = 0.58 D^0.571 tokens; N non-embedding params, D tokens.

    Weight decay, beta2 and the warm-up, in steps of the run's own batch, are those of all their runs, whose rate ends
    at 1e-5 whatever its peak.
    """
    batch = 0.58 * scale.tokens**0.571
    return Settings(
        learning_rate=1.79 * scale.non_embedding_params**-0.713 * scale.tokens**0.307,
        batch_tokens=batch,
        weight_decay=0.1,
        beta2=0.95,
        warmup_tokens=WARMUP_STEPS * (scale.batch_tokens or batch),
    )


STEP_LAW = Rule(
    formula="learning_rate = 1.79 N^-0.713 D^0.307; batch = 0.58 D^0.571 tokens, N non-embedding params",
    source="Li et al. 2025, arXiv:2503.04715 (Step Law)",
    settings=_settings,
    ranges={
        "non_embedding_params": (min(params for params, _ in CELLS), max(params for params, _ in CELLS)),
        "tokens": (min(tokens for _, tokens in CELLS), max(tokens for _, tokens in CELLS)),
    },
    cells=CELLS,
)

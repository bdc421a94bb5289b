"""The coordinate check of every architecture: flat in width under mup, and steep under the standard parametrisation.

One sequence of few tokens, fewer than the narrowest model has channels. The steps of so many tokens as channels meet in
one matrix, and what those of one do to another's products falls as width^-1/2, whatever the parametrisation.
"""

from dataclasses import replace

import pytest

from research.config import AdamWConfig, DataConfig, ParametrisationConfig, RunConfig, TaskConfig, TrainingConfig
from research.training.coordinates import coordinates
from tests.architectures import ARCHITECTURES, WIDTH

SIZES, STEPS, SEEDS, LENGTH, VOCAB = (WIDTH, 4 * WIDTH), 4, (0, 1, 2, 3), 8, 260
DEPTHS = {"encoder_decoder": 2, "rwkv7": 2}  # of patterns or stacks that need several layers
LAYERS_OF_OTHERS = {"scanned", "judged"}  # the same mixers, unrolled for the check or without further heads
# Not flat, and pinned. Multi-query attention's single values start as small as logits do, and what it makes of them
# falls with them (training/coordinates.py). Of the two others no wrong rule is known; after more steps they fall more.
FALLING = {
    "multi_query": {"period0.layer0_mixer": -0.56, "period0": -0.11, "stack": -0.11},
    "rwkv7": {"prefix.layer0_mixer": -0.11, "period0.layer0_mixer": -0.11},
    "encoder_decoder": {"encoder.period1.layer0_mixer": -0.12},
}


def _slopes(architecture, parametrisation):
    """Slope of each activation after STEPS steps, from a model of the zoo as the base to one 4 times as wide."""
    base = {} if parametrisation == "standard" else {"base_width": WIDTH}
    model = replace(
        ARCHITECTURES[architecture],
        depth=DEPTHS.get(architecture, 1),
        vocab_size=VOCAB,
        parametrisation=ParametrisationConfig(parametrisation, **base),
    )
    task = TaskConfig("copy", lengths=(2, LENGTH), evaluated=(2, LENGTH), symbols=16) if model.encoder else None
    length = task.sequence_length(encoder_decoder=True) if task else LENGTH
    config = RunConfig(
        model=model,
        data=DataConfig(vocab_size=VOCAB),
        optimizer=AdamWConfig(3e-3),
        training=TrainingConfig(STEPS, 1, length),
        **({"task": task} if task else {}),
    )
    return {one.activation: one.slope for one in coordinates(config, SIZES, "width", STEPS, SEEDS) if one.step == STEPS}


@pytest.mark.slow
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES.keys() - LAYERS_OF_OTHERS))
def test_activations_move_as_far_at_every_width_under_mup_and_not_under_standard(architecture):
    """Measured under mup: within 0.09 but for what is pinned, to within 0.05; logits -0.39 to -0.14.

    Under standard the steepest activation of a layer rises by 0.31 (relative positions) to 1.04 (H3).
    """
    slopes = _slopes(architecture, "mup")
    assert slopes.pop("logits") < 0.1
    falling = {name: slopes.pop(name) for name in FALLING.get(architecture, {})}
    assert {name: slope for name, slope in slopes.items() if abs(slope) > 0.1} == {}
    assert falling == pytest.approx(FALLING.get(architecture, {}), abs=0.05)
    standard = _slopes(architecture, "standard")
    assert max(slope for name, slope in standard.items() if "layer" in name) > 0.25

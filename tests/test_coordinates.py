"""The coordinate check: flat under the parametrisations that are meant to be, and steep under the standard one."""

from dataclasses import replace

import numpy as np
import pytest

from research.command import cli
from research.config import (
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    DataConfig,
    MlpConfig,
    ModelConfig,
    ParametrisationConfig,
    RunConfig,
    TaskConfig,
    TrainingConfig,
)
from research.training.coordinates import coordinates

BASE_WIDTH, BASE_DEPTH, STEPS = 32, 2, 4


def _run(parametrisation):
    base = {} if parametrisation == "standard" else {"base_width": BASE_WIDTH, "base_depth": BASE_DEPTH}
    model = ModelConfig(
        260,
        BASE_WIDTH,
        BASE_DEPTH,
        "attention:mlp",
        attention=AttentionConfig(2, 2, 16),
        mlp=MlpConfig(64),
        parametrisation=ParametrisationConfig(parametrisation, **base),
    )
    training = TrainingConfig(steps=STEPS, batch_size=4, sequence_length=32)
    return RunConfig(model=model, data=DataConfig(vocab_size=260), training=training, optimizer=AdamWConfig(3e-3))


def _slopes(config, sizes, by="width"):
    return {one.activation: one.slope for one in coordinates(config, sizes, by, STEPS) if one.step == STEPS}


@pytest.mark.slow
def test_activations_move_as_far_at_every_depth_under_completep_and_not_under_mup():
    """Measured: the final hidden states 0.02 under completep, 0.16 under mup. The unnormed stack may fall (-0.35)."""
    sizes = (2, 4, 8)
    slopes = _slopes(_run("completep"), sizes, "depth")
    assert set(slopes) == {"embedding", "stack", "final", "logits"}
    assert slopes.pop("stack") < 0.1
    assert max(map(abs, slopes.values())) < 0.1
    assert _slopes(_run("mup"), sizes, "depth")["final"] > 0.12


def test_every_activation_is_seen_and_slopes_are_of_logarithms():
    found = coordinates(_run("mup"), (32, 64), steps=1, seeds=(0,))
    parts = [f"period{i}{part}" for i in range(2) for part in ("", ".layer0_mixer", ".layer0_channel")]
    assert {one.activation for one in found} == {"embedding", "stack", "final", "logits", *parts}
    for one in found:
        assert one.sizes == (32, 64) and one.step == 1 and min(one.changes) > 0
        assert one.slope == pytest.approx(np.log2(one.changes[1] / one.changes[0]))


def test_an_encoder_decoder_is_checked_too():
    pair = {"pattern": "gru -> gru_multiplicative", "source_length": 6, "vocab_size": 32, "depth": 1}
    base = _run("mup")
    task = TaskConfig("copy", lengths=(2, 6), evaluated=(2, 6), symbols=16)
    training = replace(base.training, sequence_length=task.sequence_length(encoder_decoder=True))
    config = replace(base, model=replace(base.model, **pair), task=task, training=training)
    found = {one.activation for one in coordinates(config, (16, 32), steps=1, seeds=(0,))}
    assert {"encoder.period0.layer0_mixer", "period0.layer0_mixer", "logits"} <= found


def test_one_size_has_no_slope():
    with pytest.raises(ConfigError, match=r"width = \(64, 64\): must be at least two sizes"):
        coordinates(_run("mup"), (64, 64))


def test_the_command_prints_slopes_and_draws_them(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "from research.config import *\nfrom research.plan import Runs\n"
        "model = ModelConfig(260, 16, 1, 'gru', parametrisation=ParametrisationConfig('mup', 16))\n"
        "training = TrainingConfig(1, 2, 8)\n"
        "run = RunConfig(model=model, data=DataConfig(vocab_size=260), training=training)\n"
        "EXPERIMENT = Runs('mine', '?', (run,))\n"
    )
    asked = ["coordinates", str(file), "--runs-dir", str(tmp_path)]
    assert cli.main([*asked, "--widths", "16", "32", "--steps", "1"]) == 0
    printed = capsys.readouterr().out
    assert "transformer-w16-d1-mup-seed0, mup parametrisation" in printed
    assert "period0.layer0_mixer" in printed and "after 1 steps" in printed
    assert (tmp_path / "mine" / "coordinates-width.png").is_file()
    assert cli.main([*asked, "--widths", "16", "32", "--depths", "1", "2"]) == cli.USAGE_ERROR

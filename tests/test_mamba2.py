"""Mamba-2's block: published initialisation, one function for every algorithm, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import drawn_by_numpy

from research.config import ConfigError, DataConfig, Mamba2Config, ModelConfig, RunConfig, TrainingConfig
from research.models import language_model
from research.optim.optimizer import decayed

MAMBA2 = Mamba2Config(state_size=4, head_dim=6, groups=2, chunk=4)
MODEL = ModelConfig(vocab_size=97, width=24, depth=2, pattern="mamba2", mamba2=MAMBA2)


def test_starts_as_published():
    model = replace(MODEL, width=960, depth=3)  # 320 heads of 6
    params = language_model.init(model, jax.random.key(0))["period2"]["layer0_mixer"]
    steps, rates = jax.nn.softplus(params["dt_bias"]), jnp.exp(params["A_log"])
    assert float(steps.min()) >= 1e-3 * (1 - 1e-5) and float(steps.max()) <= 1e-1 * (1 + 1e-5)
    assert float(rates.min()) >= 1 - 1e-5 and float(rates.max()) <= 16 * (1 + 1e-5)
    # Uniform on [1, 16]: the mean of 320 draws lies within 4 * 15 / sqrt(12 * 320) of 8.5.
    assert float(rates.mean()) == pytest.approx(8.5, abs=0.97)
    np.testing.assert_array_equal(params["skip"], 1)
    np.testing.assert_array_equal(params["gain"], 1)
    bounds = dict.fromkeys(("gate", "input", "selection", "dt"), 960 ** (-0.5)) | {"out": (1920 * 3) ** -0.5}
    for name, bound in bounds.items():
        assert float(params[name].std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_only_matrices_and_taps_decay():
    mixer = decayed(language_model.abstract(MODEL))["period0"]["layer0_mixer"]
    kept = {name: {"kernel": True, "bias": False} for name in ("conv_input", "conv_selection")}
    kept |= dict.fromkeys(("gate", "input", "selection", "dt", "out"), True)
    kept |= dict.fromkeys(("A_log", "skip", "dt_bias", "gain"), False)
    assert mixer == kept


@pytest.mark.parametrize("change", [{"algorithm": "recurrent"}, {"chunk": 1}, {"chunk": 11}])
def test_algorithms_are_one_model(change):
    other = replace(MODEL, mamba2=replace(MAMBA2, **change))
    params = drawn_by_numpy(MODEL)
    tokens = jax.random.randint(jax.random.key(1), (2, 11), 0, 97)

    def gradient(model):
        return jax.jit(jax.value_and_grad(lambda p: language_model.logits(model, p, tokens).var()))(params)

    # float32 in another order: a few units in the last place, relative to each parameter's largest gradient.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max(), rtol=0),
        gradient(other),
        gradient(MODEL),
    )


def test_bfloat16_keeps_the_recurrent_state_in_float32():
    half = replace(MODEL, compute_dtype="bfloat16")
    state = language_model.init_states(half, 2, 8)["periods"][0][0][0]
    kinds = (state.conv_input_BWP.dtype, state.conv_selection_BWC.dtype, state.scan_BGNM.dtype)
    assert kinds == (jnp.bfloat16, jnp.bfloat16, jnp.float32)


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match=r"model.mamba2.head_dim = 7: must divide the expand \* width = 48"):
        replace(MODEL, mamba2=Mamba2Config(head_dim=7))
    with pytest.raises(ConfigError, match=r"model.mamba2.groups = 3: must divide the 8 heads"):
        replace(MODEL, mamba2=Mamba2Config(head_dim=6, groups=3))
    replace(MODEL, pattern="attention:mlp", mamba2=Mamba2Config(head_dim=7))


def test_a_chunk_longer_than_the_sequence_is_refused():
    data = DataConfig(vocab_size=300, tokenizer="sentencepiece")
    model, training = replace(MODEL, vocab_size=300), TrainingConfig(sequence_length=48)
    with pytest.raises(ConfigError, match=r"model.mamba2.chunk = 64: must not exceed .* = 48. Fix: use at most 48"):
        RunConfig(
            model=replace(model, mamba2=replace(MAMBA2, algorithm="chunked", chunk=64)), data=data, training=training
        )
    recurrent = replace(MAMBA2, chunk=64, algorithm="recurrent")
    RunConfig(model=replace(model, mamba2=recurrent), data=data, training=training)

"""Mamba's block: published initialisation, one function for every algorithm, and what is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import drawn_by_numpy

from research.config import ConfigError, DataConfig, MambaConfig, ModelConfig, RunConfig, TrainingConfig
from research.models import language_model
from research.optim.optimizer import decayed

MODEL = ModelConfig(vocab_size=97, width=24, depth=2, pattern="mamba", mamba=MambaConfig(state_size=4, chunk=4))


def test_starts_as_published():
    params = language_model.init(replace(MODEL, width=96, depth=3), jax.random.key(0))["period2"]["layer0_mixer"]
    steps = jax.nn.softplus(params["dt_bias"])
    assert float(steps.min()) >= 1e-3 * (1 - 1e-5) and float(steps.max()) <= 1e-1 * (1 + 1e-5)
    # Log-uniform over two decades: of 192 draws, the mean of log10 lies within 4 * 0.577 / sqrt(192) of -2.
    assert float(jnp.log10(steps).mean()) == pytest.approx(-2, abs=0.17)
    rates = np.arange(1, 5, dtype=np.float32)
    np.testing.assert_allclose(jnp.exp(params["A_log"]), np.tile(rates[:, None], 192), rtol=1e-6)
    np.testing.assert_array_equal(params["skip"], 1)
    # Uniform within +-1 / sqrt(inputs), W_dt by its rank of 6; the last matrix by sqrt(3) layers less.
    bounds = {"input": 96**-0.5, "gate": 96**-0.5, "selection": 192**-0.5, "dt": 6**-0.5, "out": (192 * 3) ** -0.5}
    for name, bound in bounds.items():
        assert 0.98 * bound < float(jnp.abs(params[name]).max()) <= bound
        assert float(params[name].std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_only_matrices_and_taps_decay():
    mask = decayed(language_model.abstract(replace(MODEL, mamba=MambaConfig(inner_norms="learned"))))
    mixer = mask["period0"]["layer0_mixer"]
    kept = {"conv": {"kernel": True, "bias": False}}
    kept |= dict.fromkeys(("input", "gate", "selection", "dt", "out"), True)
    kept |= dict.fromkeys(("A_log", "skip", "dt_bias"), False)
    kept |= {name: {"gain": False} for name in ("dt_norm", "B_norm", "C_norm")}
    assert mixer == kept


@pytest.mark.parametrize("algorithm", ["sequential", "associative"])
def test_algorithms_are_one_model(algorithm):
    other = replace(MODEL, mamba=replace(MODEL.mamba, algorithm=algorithm))
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
    assert (state.conv_BWP.dtype, state.scan_BNP.dtype) == (jnp.bfloat16, jnp.float32)


def test_a_chunk_longer_than_the_sequence_is_refused():
    data = DataConfig(vocab_size=300, tokenizer="sentencepiece")
    model = replace(MODEL, vocab_size=300, mamba=MambaConfig(algorithm="chunked", chunk=64))
    training = TrainingConfig(sequence_length=48)
    with pytest.raises(ConfigError, match=r"model.mamba.chunk = 64: must not exceed .* = 48. Fix: use at most 48"):
        RunConfig(model=model, data=data, training=training)
    RunConfig(model=replace(model, mamba=MambaConfig(algorithm="chunked", chunk=48)), data=data, training=training)
    RunConfig(model=replace(model, mamba=MambaConfig(chunk=64)), data=data, training=training)
    RunConfig(model=replace(model, pattern="attention:mlp"), data=data, training=training)

"""S4 and H3 as layers: a convolution is a recurrence, nothing sees the future, and they start as published."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ConfigError, DataConfig, H3Config, ModelConfig, RunConfig, S4Config, TrainingConfig
from research.models import language_model, mixers
from research.models.layers import Shared, draw
from research.models.state_spaces import hippo

MODELS = {
    "dplr": ModelConfig(width=4, depth=1, pattern="s4", s4=S4Config(state_size=6, kernel_length=16)),
    "zoh": ModelConfig(width=4, depth=1, pattern="s4", s4=S4Config("diagonal", 6, "inv", "zoh")),
    "bilinear": ModelConfig(width=4, depth=1, pattern="s4", s4=S4Config("diagonal", 6, "real", "bilinear")),
    "h3": ModelConfig(width=4, depth=1, pattern="h3", h3=H3Config(2, 6)),
}


@functools.cache
def _mixer(name):
    """(function of inputs (B, L, D) and state, params), everything in float64, every parameter moved off its start."""
    model = replace(MODELS[name], compute_dtype="float64")
    mixer = mixers.SEQUENCE_MIXERS[model.pattern]
    module = mixer.module(model, 0)
    x_BLD = jax.ShapeDtypeStruct((1, 3, model.width), jnp.float64)
    boxed = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, None, Shared()), x_BLD)["params"]
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64) + 0.1 * rng.normal(size=leaf.shape), draw(boxed, jax.random.key(0))
    )
    return jax.jit(lambda x_BLD, state=None: module.apply({"params": params}, x_BLD, state, Shared())[:2]), mixer, model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prompt", [1, 6])
def test_convolution_equals_recurrence(name, prompt):
    with jax.enable_x64(True):
        function, mixer, model = _mixer(name)
        x_BLD = np.random.default_rng(1).normal(size=(2, 11, 4))
        whole_BLD, _ = function(x_BLD)
        state = mixer.init_state(model, 2, 11)
        y_BLD, state = function(x_BLD[:, :prompt], state)
        read = [y_BLD]
        for t in range(prompt, 11):
            y_BLD, state = function(x_BLD[:, t : t + 1], state)
            read.append(y_BLD)
        assert whole_BLD.dtype == np.float64
    np.testing.assert_allclose(np.concatenate(read, axis=1), whole_BLD, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_no_output_depends_on_a_later_input(name):
    """The Jacobian above the diagonal is the rounding of a Fourier transform, below it is not."""
    with jax.enable_x64(True):
        function, _, _ = _mixer(name)
        x_LD = jnp.asarray(np.random.default_rng(2).normal(size=(9, 4)))
        jacobian_LDLD = jax.jacobian(lambda x_LD: function(x_LD[None])[0][0])(x_LD)
    size_LL = np.abs(jacobian_LDLD).max(axis=(1, 3))
    assert size_LL[np.triu_indices(9, 1)].max() < 1e-14 * size_LL.max()
    assert size_LL[np.tril_indices(9)].min() > 1e-6 * size_LL.max()


def test_starts_as_published():
    model = ModelConfig(width=512, depth=2, pattern="s4, h3", s4=S4Config(state_size=16), h3=H3Config(2, 16))
    params = language_model.init(model, jax.random.key(0))["period0"]
    s4, h3_layer = params["layer0_mixer"], params["layer1_mixer"]
    for layer in (s4, h3_layer):
        steps = jnp.exp(layer["log_dt"])
        assert float(steps.min()) >= 1e-3 * (1 - 1e-5) and float(steps.max()) <= 1e-1 * (1 + 1e-5)
        # Log-uniform over two decades: the mean of log10 of 256 draws or more is within 4 * 0.577 / 16 of -2.
        assert float(jnp.log10(steps).mean()) == pytest.approx(-2, abs=0.145)
        np.testing.assert_allclose(jnp.exp(layer["log_damping"]), 0.5, rtol=1e-6)
        readout = layer["readout_real"] + 1j * layer["readout_imaginary"]
        assert float((jnp.abs(readout) ** 2).mean()) == pytest.approx(1, rel=0.1)
        assert float(layer["skip"].std()) == pytest.approx(1, rel=0.2)
    eigenvalues, low_rank, inputs = hippo.diagonal_plus_low_rank(16)
    np.testing.assert_allclose(s4["frequency"], np.tile(eigenvalues.imag, (512, 1)), rtol=1e-6)
    np.testing.assert_allclose(s4["low_rank_real"], np.tile(low_rank, (512, 1)), rtol=1e-6)
    np.testing.assert_allclose(s4["input_real"], np.tile(inputs, (512, 1)), rtol=1e-6)
    np.testing.assert_allclose(h3_layer["frequency"], np.tile(np.pi * np.arange(8), (256, 1)), rtol=1e-6)
    np.testing.assert_array_equal(h3_layer["shift_input"], np.broadcast_to(np.eye(16)[0], (256, 2, 16)))
    assert 0.99 * 16**-0.5 < float(jnp.abs(h3_layer["shift_readout"]).max()) <= 16**-0.5


def test_bad_configs_are_refused_with_the_fix():
    with pytest.raises(ConfigError, match=r"model.s4.state_size = 7: must be even.*Fix: round it up"):
        S4Config(state_size=7)
    with pytest.raises(ConfigError, match=r"model.s4.discretisation = 'zoh': must be 'bilinear' with the dplr kernel"):
        S4Config(discretisation="zoh")
    with pytest.raises(ConfigError, match=r"model.h3.dt_max = 0.1: must be at least dt_min = 0.2"):
        H3Config(dt_min=0.2)
    with pytest.raises(ConfigError, match=r"model.h3.head_dim = 8: must divide model.width = 12"):
        ModelConfig(width=12, pattern="h3:mlp", h3=H3Config(8))
    model = ModelConfig(pattern="s4", s4=S4Config(kernel_length=64))
    with pytest.raises(
        ConfigError, match=r"model.s4.kernel_length = 64: must be at least training.sequence_length = 128"
    ):
        RunConfig(model=model, data=DataConfig(), training=TrainingConfig(sequence_length=128))
    with pytest.raises(ValueError, match=r"a sequence of 65 tokens is longer than model.s4.kernel_length = 64"):
        params = language_model.unbox(language_model.abstract(model))
        jax.eval_shape(lambda p: language_model.logits(model, p, jnp.zeros((1, 65), jnp.int32)), params)

"""Linear state spaces by their identities: kernels are matrix powers, convolutions are recurrences, LegS remembers."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import DataConfig, MeshConfig, OptimizerConfig, RunConfig, TrainingConfig
from research.model_config import MlpConfig, ModelConfig
from research.models import blocks, h3, hippo, language_model, ssm_kernel
from research.models.layers import Shared, draw
from research.optim.optimizer import decayed, make_optimizer
from research.sharding import make_mesh
from research.ssm_config import H3Config, S4Config
from research.training.feed import global_batch
from research.training.step import make_program
from research.values import ConfigError

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
    mixer = blocks.SEQUENCE_MIXERS[model.pattern]
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


def test_legs_is_normal_plus_low_rank():
    A_NN, B_N = hippo.legs(16)
    P_N = hippo.low_rank(16)
    S_NN = A_NN + np.outer(P_N, P_N)
    np.testing.assert_allclose((S_NN + S_NN.T) / 2, -np.eye(16) / 2, atol=1e-13)
    np.testing.assert_allclose(S_NN @ S_NN.T, S_NN.T @ S_NN, atol=1e-10)
    eigenvalues, low_rank, inputs = hippo.diagonal_plus_low_rank(16)
    np.testing.assert_allclose(np.linalg.eigvals(S_NN).real, -0.5, atol=1e-12)
    assert (eigenvalues.real == -0.5).all() and (np.diff(eigenvalues.imag) > 0).all() and eigenvalues.imag[0] > 0
    # The pair (A, B) in another basis: B^T A^k B is the same for every k.
    L, p, b = (np.concatenate([v, np.conj(v)]) for v in (eigenvalues, low_rank, inputs))
    moved_NN = np.diag(L) - np.outer(p, p.conj())
    for power in range(6):
        expected = B_N @ np.linalg.matrix_power(A_NN, power) @ B_N
        found = b.conj() @ np.linalg.matrix_power(moved_NN, power) @ b
        assert found == pytest.approx(expected, rel=1e-11)


def test_eigenvalues_are_the_published_ones():
    np.testing.assert_allclose(hippo.eigenvalues("lin", 8), -0.5 + 1j * np.pi * np.arange(4))
    np.testing.assert_allclose(hippo.eigenvalues("inv", 8).imag, 8 / np.pi * (8 / np.array([1, 3, 5, 7]) - 1))
    np.testing.assert_allclose(hippo.eigenvalues("real", 8), [-1, -2, -3, -4])
    # S4D's reason for inv: it approaches the frequencies of LegS as N grows (S4D, section 4.2).
    legs, inv = (np.sort(hippo.eigenvalues(name, 256).imag)[-1] for name in ("legs", "inv"))
    assert inv == pytest.approx(legs, rel=0.01)


def test_legs_holds_the_past_as_legendre_coefficients():
    """x' = (A x + B u) / t, stepped bilinearly, projects all of u on Legendre polynomials (Gu 2020, theorem 2)."""
    state_size, steps = 8, 4_000
    A_NN, B_N = hippo.legs(state_size)
    time = (np.arange(steps) + 0.5) / steps
    signal = np.sin(5 * time) + time**2
    x_N = signal[0] * np.eye(state_size)[0]  # all that the first step can know: a constant
    for k in range(1, steps):
        right_N = x_N + A_NN @ x_N / (2 * k) + B_N * signal[k] / k
        x_N = np.linalg.solve(np.eye(state_size) - A_NN / (2 * k), right_N)
    scale_N = np.sqrt(2 * np.arange(state_size) + 1)
    recovered = np.polynomial.legendre.legval(2 * time - 1, scale_N * x_N)
    nearest = np.polynomial.Legendre.fit(2 * time - 1, signal, state_size - 1)(2 * time - 1)
    # What no polynomial of that degree can hold, and as much again for the steps: an error of order 1 / steps.
    np.testing.assert_allclose(recovered, signal, atol=np.abs(nearest - signal).max() + 2 / steps)


def _low_rank_system(seed=0, channels=3, pairs=4):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(4, channels, pairs)) + 1j * rng.normal(size=(4, channels, pairs))
    eigenvalues = -np.abs(vectors[0].real) + 3j * vectors[0].imag
    return ssm_kernel.LowRank(*map(jnp.asarray, (eigenvalues, *vectors[1:], rng.uniform(0.05, 0.2, channels))))


@pytest.mark.parametrize("length", [1, 2, 15, 16])
def test_dplr_kernel_equals_matrix_powers(length):
    """C Abar^l Bbar with dense matrices over all of N, C from C~ = C (I - Abar^length) (annotated-s4's check)."""
    with jax.enable_x64(True):
        system = _low_rank_system()
        kernel_LD = ssm_kernel.dplr_kernel(system, length)
        for d in range(3):
            L, p, b, c = (np.concatenate([v[d], np.conj(v[d])]) for v in system[:4])
            half = float(system.step_D[d]) / 2
            A, one = np.diag(L) - np.outer(p, p.conj()), np.eye(8)
            step, inputs = (
                np.linalg.solve(one - half * A, one + half * A),
                np.linalg.solve(one - half * A, 2 * half * b),
            )
            readout = np.linalg.solve((one - np.linalg.matrix_power(step, length)).T, c)
            powers = [readout @ np.linalg.matrix_power(step, t) @ inputs for t in range(length)]
            np.testing.assert_allclose(kernel_LD[:, d], np.real(powers), rtol=0, atol=1e-12 * np.abs(powers).max())


def _diagonal_system(method, step, initialisation="lin"):
    eigenvalues = jnp.asarray(hippo.eigenvalues(initialisation, 8)[None])
    readout = jnp.asarray(np.random.default_rng(3).normal(size=(1, 4)) + 0j)
    return ssm_kernel.discretize(eigenvalues, jnp.ones((1, 1)) + 0j, readout, jnp.full(1, step), method)


def test_halving_the_step_resamples_the_kernel():
    """At half the step, two taps together are one tap: exactly under zero-order hold, to second order bilinearly."""

    def error(method, taps):
        coarse = ssm_kernel.diagonal_kernel(_diagonal_system(method, 0.32 / taps), taps)[:, 0]
        fine = ssm_kernel.diagonal_kernel(_diagonal_system(method, 0.16 / taps), 2 * taps)[:, 0]
        return float(jnp.abs(fine[0::2] + fine[1::2] - coarse).max() / jnp.abs(coarse).max())

    with jax.enable_x64(True):
        assert error("zoh", 64) < 1e-13
        assert error("bilinear", 64) < 1e-3
        assert error("bilinear", 32) / error("bilinear", 64) == pytest.approx(4, rel=0.1)


@pytest.mark.parametrize("method", ["zoh", "bilinear"])
def test_small_steps_keep_their_digits_in_float32(method):
    """exp(z) - 1 and the logarithm of numbers near one, at the smallest published step and smaller."""
    for step in (1e-3, 1e-6):
        single = _diagonal_system(method, step, "inv")
        with jax.enable_x64(True):
            double = _diagonal_system(method, step, "inv")
        for found, expected in zip(single[:2], double[:2]):
            assert found.dtype == np.complex64
            np.testing.assert_allclose(np.real(found), np.real(expected), rtol=3e-6)
            np.testing.assert_allclose(np.imag(found), np.imag(expected), rtol=3e-6, atol=3e-6 * np.abs(expected).max())


@pytest.mark.parametrize("length", [1, 5, 8])
def test_fourier_convolution_equals_the_sum(length):
    rng = np.random.default_rng(4)
    u, kernel = rng.normal(size=(2, length, 3)), rng.normal(size=(min(length, 4), 3))
    with jax.enable_x64(True):
        found = ssm_kernel.causal_convolution(jnp.asarray(u), jnp.asarray(kernel))
    for b in range(2):
        for d in range(3):
            np.testing.assert_allclose(found[b, :, d], np.convolve(u[b, :, d], kernel[:, d])[:length], atol=1e-13)


def test_shift_taps_are_the_shift_matrix_powers():
    rng = np.random.default_rng(5)
    inputs, readout = rng.normal(size=(2, 2, 3, 5))
    with jax.enable_x64(True):
        taps_LHK = h3.shift_taps(jnp.asarray(inputs), jnp.asarray(readout), 9)
    shift = np.eye(5, k=-1)
    expected = [np.einsum("hkn,nm,hkm->hk", readout, np.linalg.matrix_power(shift, t), inputs) for t in range(5)]
    np.testing.assert_allclose(taps_LHK, expected, atol=1e-13)


def test_starts_as_published():
    model = ModelConfig(width=512, depth=2, pattern="s4, h3", s4=S4Config(state_size=16), h3=H3Config(2, 16))
    params = language_model.init(model, jax.random.key(0))["period0"]
    s4, h3_layer = params["layer0_mixer"], params["layer1_mixer"]
    for layer in (s4, h3_layer):
        steps = jnp.exp(layer["log_step"])
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


def test_dynamics_are_never_decayed():
    model = ModelConfig(width=4, depth=3, pattern="s4, h3, attention")
    mask = decayed(language_model.abstract(model))["period0"]
    kept = ("readout_real", "readout_imaginary", "shift_readout", "out", "query", "key", "value")
    for layer in ("layer0_mixer", "layer1_mixer"):
        assert {name for name, flag in mask[layer].items() if flag} == {name for name in mask[layer] if name in kept}
    assert not mask["layer0_mixer"]["low_rank_real"] and not mask["layer0_mixer"]["log_step"]


@pytest.mark.parametrize(("rate", "share"), [(4e-3, 0.25), (5e-4, 1.0)])
def test_dynamics_learn_at_a_capped_rate(rate, share):
    """Adam's first step is the learning rate for every parameter, whatever its gradient."""
    model = ModelConfig(width=4, depth=2, pattern="s4, h3")
    config = OptimizerConfig(
        learning_rate=rate, schedule="constant", warmup_fraction=0.0, weight_decay=0.0, clip_norm=None
    )
    boxed = language_model.abstract(model)
    optimizer = make_optimizer(config, boxed, 10)
    params = language_model.init(model, jax.random.key(0))
    updates, _ = jax.jit(optimizer.update)(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    capped = ("log_damping", "frequency", "log_step", "low_rank", "input", "shift_input")
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path[-1:], simple=True)
        expected = -rate * (share if name.removesuffix("_real").removesuffix("_imaginary") in capped else 1.0)
        np.testing.assert_allclose(update, expected, rtol=1e-5, err_msg=name)


def test_bad_configs_are_refused_with_the_fix():
    with pytest.raises(ConfigError, match=r"model.s4.state_size = 7: must be even.*Fix: round it up"):
        S4Config(state_size=7)
    with pytest.raises(ConfigError, match=r"model.s4.discretisation = 'zoh': must be 'bilinear' with the dplr kernel"):
        S4Config(discretisation="zoh")
    with pytest.raises(ConfigError, match=r"model.h3.step_max = 0.1: must be at least step_min = 0.2"):
        H3Config(step_min=0.2)
    with pytest.raises(ConfigError, match=r"model.h3.head_dim = 8: must divide model.width = 12"):
        ModelConfig(width=12, pattern="h3:mlp", h3=H3Config(8))
    model = ModelConfig(pattern="s4", s4=S4Config(kernel_length=64))
    with pytest.raises(ConfigError, match=r"model.s4.kernel_length = 64: must be at least the sequence length, 128"):
        RunConfig(model=model, data=DataConfig(), training=TrainingConfig(sequence_length=128))
    with pytest.raises(ValueError, match=r"a sequence of 65 tokens is longer than model.s4.kernel_length = 64"):
        params = language_model.unbox(language_model.abstract(model))
        jax.eval_shape(lambda p: language_model.logits(model, p, jnp.zeros((1, 65), jnp.int32)), params)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["s4", "h3"])
def test_a_run_is_the_same_on_a_mesh(pattern, capfd):
    config = tiny_run(steps=5)
    sections = {"s4": S4Config(state_size=8, kernel_length=16), "h3": H3Config(2, 8)}
    config = replace(config, model=replace(config.model, pattern=pattern, **sections))
    examples = synthetic_examples(config)

    def losses(mesh):
        with jax.set_mesh(mesh):
            program = make_program(config, mesh)
            state, found = program.init(), []
            for step in range(5):
                state, measured = program.train(state, global_batch(config, examples, step, program.batch_sharding))
                found.append(float(measured["loss_nats"]))
        return np.array(found)

    split = losses(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    # As in test_sharding: 1e-6 relative, float32 sums in another order.
    np.testing.assert_allclose(split, losses(make_mesh(MeshConfig(data=1), jax.devices()[:1])), rtol=1e-6)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


def _recall(rng, batch, pairs=6, symbols=4):
    """(tokens, answers): key-value pairs in a row under one random assignment, then a key that has appeared."""
    values = rng.integers(0, symbols, (batch, symbols))
    keys = rng.integers(0, symbols, (batch, pairs))
    rows = np.stack([keys, symbols + np.take_along_axis(values, keys, axis=1)], axis=2).reshape(batch, 2 * pairs)
    asked = np.take_along_axis(keys, rng.integers(0, pairs, (batch, 1)), axis=1)
    return np.concatenate([rows, asked], axis=1), symbols + np.take_along_axis(values, asked, axis=1)[:, 0]


@pytest.mark.slow
def test_h3_learns_associative_recall():
    """The task of Fu 2023, section 3.2, at a size of seconds: four keys, four values, six pairs; chance is 1/4."""
    model = ModelConfig(
        vocab_size=8, width=32, depth=2, pattern="h3:mlp", h3=H3Config(1, 16), mlp=MlpConfig(64, "gelu"), norm="layer"
    )
    steps = 600
    optimizer = make_optimizer(OptimizerConfig(learning_rate=5e-3), language_model.abstract(model), steps)

    def loss(params, tokens, answers):
        logits_BV = language_model.logits(model, params, tokens)[:, -1]
        return optax.softmax_cross_entropy_with_integer_labels(logits_BV, answers).mean()

    @jax.jit
    def train(params, moments, tokens, answers):
        updates, moments = optimizer.update(jax.grad(loss)(params, tokens, answers), moments, params)
        return optax.apply_updates(params, updates), moments

    rng = np.random.default_rng(0)
    params = language_model.init(model, jax.random.key(0))
    moments = optimizer.init(params)
    for _ in range(steps):
        params, moments = train(params, moments, *_recall(rng, 64))
    tokens, answers = _recall(rng, 1_000)
    accuracy = float((language_model.logits(model, params, tokens)[:, -1].argmax(-1) == answers).mean())
    print(f"accuracy {accuracy:.3f} after {steps} steps")
    assert accuracy > 0.95

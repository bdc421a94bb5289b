"""The selective scan: every algorithm and chunk size is the recurrence written out, in values and in all gradients."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ConfigError, MambaConfig, MeshConfig, ModelConfig
from research.models.algorithms import algorithm, names
from research.models.kernels import selective_scan as kernel
from research.models.state_spaces import selective_scan as module
from research.models.state_spaces.selective_scan import ALGORITHMS
from research.sharding import make_mesh

selective_scan = jax.jit(module.selective_scan, static_argnums=(0, 1))

BATCH, LENGTH, CHANNELS, STATES = 2, 13, 6, 4
NAMES = ("x", "dt", "rate", "write", "read", "state")


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0), 6)
    shape = (BATCH, LENGTH, CHANNELS)
    return (
        jax.random.normal(keys[0], shape),
        jax.nn.softplus(jax.random.normal(keys[1], shape)),
        -jnp.exp(jax.random.normal(keys[2], (STATES, CHANNELS))),
        jax.random.normal(keys[3], (BATCH, LENGTH, STATES)),
        jax.random.normal(keys[4], (BATCH, LENGTH, STATES)),
        jax.random.normal(keys[5], (BATCH, STATES, CHANNELS)),
    )


def _written_out(x, step, rate, write, read, state):
    x, step, rate, write, read, state = (np.asarray(a, np.float64) for a in (x, step, rate, write, read, state))
    y = np.zeros_like(x)
    for t in range(x.shape[1]):
        for n in range(rate.shape[0]):
            decay = np.exp(step[:, t] * rate[n])
            state[:, n] = decay * state[:, n] + step[:, t] * write[:, t, n, None] * x[:, t]
            y[:, t] += read[:, t, n, None] * state[:, n]
    return y, state


CASES = [("sequential", 1), ("associative", 1), *(("chunked", chunk) for chunk in (1, 4, 13, 64))]


@pytest.mark.parametrize(("algorithm", "chunk"), CASES)
def test_equals_the_recurrence_written_out(algorithm, chunk, inputs):
    assert {name for name, _ in CASES} == set(ALGORITHMS)
    for found, expected in zip(selective_scan(algorithm, chunk, *inputs), _written_out(*inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # float32 sums of a dozen terms of order one


@pytest.mark.parametrize(("algorithm", "chunk"), CASES[1:])
def test_gradients_by_every_input_equal_the_sequential_ones(algorithm, chunk, inputs):
    def gradients(algorithm, chunk):
        def loss(*inputs):
            y, state = selective_scan(algorithm, chunk, *inputs)
            return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(state))

        return jax.jit(jax.grad(loss, argnums=range(6)))(*inputs)

    expected = gradients("sequential", 1)
    for name, found, want in zip(NAMES, gradients(algorithm, chunk), expected, strict=True):
        assert float(jnp.abs(want).max()) > 0
        np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max(), rtol=0, err_msg=name)


def _large(channels, length):
    keys = jax.random.split(jax.random.key(1), 6)
    return (
        jax.random.normal(keys[0], (BATCH, length, channels)),
        jax.nn.softplus(jax.random.normal(keys[1], (BATCH, length, channels)) - 2),
        -jnp.exp(jax.random.normal(keys[2], (STATES, channels))),
        jax.random.normal(keys[3], (BATCH, length, STATES)),
        jax.random.normal(keys[4], (BATCH, length, STATES)),
        jax.random.normal(keys[5], (BATCH, STATES, channels)),
    )


def _outcome(algorithm, inputs):
    """(y, state) and the gradients by every input."""

    def loss(*inputs):
        y, state = module.selective_scan(algorithm, 32, *inputs)
        return jnp.sum(jnp.sin(y)) + jnp.sum(jnp.cos(state)), (y, state)

    return jax.jit(jax.grad(loss, argnums=range(6), has_aux=True))(*inputs)


@pytest.fixture(params=["gpu", "tpu"])
def interpreted(request, monkeypatch):
    """A backend's kernel on a CPU."""
    monkeypatch.setattr(kernel, "selective_scan", functools.partial(kernel.selective_scan, interpret=True))
    monkeypatch.setattr(module, "platform", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("channels", "length"), [(130, 150), (384, 128)])  # padded, and whole blocks
def test_the_kernel_is_the_scan_in_interpret_mode(interpreted, channels, length):
    inputs = _large(channels, length)
    found, expected = _outcome("pallas", inputs), _outcome("sequential", inputs)
    for one, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, want, atol=3e-6 * np.abs(want).max(), rtol=0)


def test_the_kernel_gets_each_devices_own_sequences_and_channels(interpreted):
    inputs = _large(256, 130)
    expected = _outcome("sequential", inputs)
    axes = {"gpu": {"data": 2, "tensor": 2}, "tpu": {"data": 1, "fsdp": 2, "sequence": 2}}[interpreted]
    with jax.set_mesh(make_mesh(MeshConfig(**axes), jax.devices()[:4])):
        found = _outcome("pallas", inputs)
        text = jax.jit(functools.partial(module.selective_scan, "pallas", 32)).lower(*inputs).as_text()
    padded = {"gpu": 160, "tpu": 256}[interpreted]
    assert f"tensor<1x{padded}x128xf32>" in text  # one sequence and half of the channels, in whole chunks
    for one, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, want, atol=3e-6 * np.abs(want).max(), rtol=0)


def test_both_kernels_are_lowered_for_their_backend(monkeypatch):
    """By Triton and Mosaic, forward and backward; nothing of either is compiled further, or run."""
    for backend, platform, call in (("gpu", "cuda", "__gpu$xla.gpu.triton"), ("tpu", "tpu", "tpu_custom_call")):
        monkeypatch.setattr(module, "platform", lambda backend=backend: backend)
        gradient = jax.jit(jax.grad(lambda *inputs: module.selective_scan("pallas", 32, *inputs)[0].sum(), range(6)))
        checks = [jax.export.DisabledSafetyCheck.custom_call(call)]
        text = jax.export.export(gradient, platforms=[platform], disabled_checks=checks)(*_large(96, 130)).mlir_module()
        assert text.count(f"@{call}(") == 2


def test_the_kernel_is_for_accelerators_and_whole_sequences(inputs):
    config = ModelConfig(pattern="mamba", mamba=MambaConfig(algorithm="pallas"))
    refusal = r"model.mamba.algorithm = 'pallas': runs on a gpu or tpu alone, and this is a cpu"
    with pytest.raises(ConfigError, match=refusal):
        algorithm(config, "mamba")
    assert algorithm(config, "mamba", "tpu") == "pallas"
    assert algorithm(ModelConfig(pattern="mamba"), "mamba", "tpu") == "pallas"
    many = MambaConfig(state_size=65)
    assert algorithm(ModelConfig(pattern="mamba", mamba=many), "mamba", "tpu") == "chunked"
    with pytest.raises(ConfigError, match="holds up to 64 states of a channel, and model.mamba.state_size is 65"):
        replace(config, mamba=replace(many, algorithm="pallas"))
    with pytest.raises(ConfigError, match="computes in float32, and model.compute_dtype is float64"):
        replace(config, compute_dtype="float64")
    names(replace(config, pattern="attention:mlp"), "cpu", 64)  # of a section that nothing reads nothing is asked
    short = selective_scan("pallas", 32, *inputs)  # not lowered for a CPU, were it the kernel
    np.testing.assert_array_equal(short[0], selective_scan("sequential", 32, *inputs)[0])


def test_the_recurrence_stays_float32_under_bfloat16_inputs(inputs):
    x, step, rate, write, read, state = inputs
    halves = (x.astype(jnp.bfloat16), step, rate, write.astype(jnp.bfloat16), read.astype(jnp.bfloat16), state)
    y, after = selective_scan("chunked", 4, *halves)
    assert y.dtype == after.dtype == jnp.float32
    # The inputs alone are rounded: the result is that of the rounded inputs in float32.
    exact = [a.astype(jnp.float32) for a in halves]
    np.testing.assert_array_equal(y, selective_scan("chunked", 4, *exact)[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_step_of_zero_leaves_the_state(algorithm, inputs):
    x, step, rate, write, read, state = inputs
    _, after = selective_scan(algorithm, 4, x, 0 * step, rate, write, read, state)
    np.testing.assert_array_equal(after, state)


def test_chunks_keep_fewer_states_for_the_gradient():
    batch, length, channels, states = 2, 1024, 64, 16
    shapes = [(batch, length, channels)] * 2 + [(states, channels)] + [(batch, length, states)] * 2
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (*shapes, (batch, states, channels))]

    def temporary_bytes(algorithm):
        gradient = jax.grad(lambda *inputs: selective_scan(algorithm, 32, *inputs)[0].sum(), argnums=range(6))
        return jax.jit(gradient).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    one_state_a_token = 4 * batch * length * channels * states
    assert temporary_bytes("sequential") > one_state_a_token
    assert temporary_bytes("chunked") < one_state_a_token / 2
    assert temporary_bytes("associative") > 2 * one_state_a_token

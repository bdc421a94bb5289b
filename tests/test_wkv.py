"""The kernels of RWKV-4's recurrence are the sequential one in Pallas' interpret mode, in values and all gradients."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import ConfigError, MeshConfig, ModelConfig, Rwkv4Config
from research.models import algorithms
from research.models.kernels import wkv as kernel
from research.models.layers import Shared
from research.models.recurrent import rwkv4
from research.models.recurrent.rwkv4 import EMPTY_EXPONENT, Sums
from research.sharding import make_mesh

BATCH = 2
MODEL = ModelConfig(width=24, depth=1, pattern="rwkv4_time:rwkv4_channel", vocab_size=31)
# Sums over some hundred tokens in float32, in another order for the gradients of rate and bonus alone.
CLOSE = 3e-6


def _inputs(channels, length, scale=2.0):
    """rate, bonus, k, v and the sums of tokens before: some of the largest exponents are theirs, some those of k."""
    keys = jax.random.split(jax.random.key(0), 7)
    of_tokens, of_sequence = (BATCH, length, channels), (BATCH, channels)
    sums = Sums(
        jax.random.normal(keys[4], of_sequence),
        1 + jax.random.uniform(keys[5], of_sequence),
        scale * jax.random.normal(keys[6], of_sequence),
    )
    rate_D, bonus_D = -jnp.exp(2 * jax.random.normal(keys[0], (channels,)) - 2), jax.random.normal(keys[1], (channels,))
    return rate_D, bonus_D, scale * jax.random.normal(keys[2], of_tokens), jax.random.normal(keys[3], of_tokens), sums


def _padded_left(length):
    return jnp.arange(length)[None] >= jnp.array([[37], [0]])


def _outcome(name, inputs, mask_BL=None):
    """The gradients, by every input, of wkv, of the sums and of what further tokens read; and all of these."""

    def loss(rate_D, bonus_D, k_BLD, v_BLD, sums):
        wkv_BLD, sums = rwkv4.wkv(name, rate_D, bonus_D, k_BLD, v_BLD, sums, mask_BL)
        further_BLD, _ = rwkv4.wkv("sequential", rate_D, bonus_D, k_BLD[:, :2], v_BLD[:, -2:], sums, None)
        of_sums = sum(jnp.cos(array).sum() for array in jax.tree.leaves(sums))  # by each, whatever the other two are
        return jnp.sin(wkv_BLD).sum() + jnp.sin(3 * further_BLD).sum() + of_sums, (wkv_BLD, sums, further_BLD)

    return jax.jit(jax.grad(loss, argnums=range(5), has_aux=True))(*inputs)


def _assert_close(found, expected, within=CLOSE):
    for one, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, want, atol=within * np.abs(want).max(), rtol=0)


@pytest.fixture(params=["gpu", "tpu"])
def interpreted(request, monkeypatch):
    """A backend's kernel on a CPU."""
    monkeypatch.setattr(kernel, "wkv", functools.partial(kernel.wkv, interpret=True))
    for module in (rwkv4, algorithms):
        monkeypatch.setattr(module, "platform", lambda: request.param)
    return request.param


@pytest.mark.parametrize(("channels", "length", "padded"), [(130, 150, True), (384, 128, False)])  # and whole blocks
def test_the_kernel_is_the_recurrence_in_interpret_mode(interpreted, channels, length, padded):
    inputs, mask_BL = _inputs(channels, length), _padded_left(length) if padded else None
    _assert_close(_outcome("pallas", inputs, mask_BL), _outcome("sequential", inputs, mask_BL))


# exp(600) is no float32 number, and of an exponent of 600 float32 knows as much.
@pytest.mark.parametrize(("scale", "within"), [(1.0, CLOSE), (600.0, 600 * 2**-24)])
def test_extremes_stay_finite_from_nothing_read(interpreted, scale, within):
    rate_D, bonus_D, k_BLD, v_BLD, sums = _inputs(8, 140, scale)
    rate_D = jnp.array([-1e-9, -1e-4, -1e-2, -1.0, -20.0, -1e3, -1e6, -0.5])
    empty_BD = jnp.zeros_like(sums.numerator)
    inputs = (rate_D, bonus_D, k_BLD, v_BLD, Sums(empty_BD, empty_BD, empty_BD + EMPTY_EXPONENT))
    mask_BL = _padded_left(140) & jnp.array([[False], [True]])  # the first sequence is all padding
    found = _outcome("pallas", inputs, mask_BL)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    _assert_close(found, _outcome("sequential", inputs, mask_BL), within)
    _, (_, sums, _) = found
    assert not sums.numerator[0].any() and not sums.denominator[0].any()
    np.testing.assert_array_equal(sums.exponent[0], inputs[-1].exponent[0])


@pytest.mark.parametrize("axes", [{"data": 2, "tensor": 2}, {"data": 1, "fsdp": 2, "sequence": 2}])
def test_the_kernel_gets_each_devices_own_sequences_and_channels(interpreted, axes):
    inputs, mask_BL = _inputs(256, 130), _padded_left(130)
    expected = _outcome("sequential", inputs, mask_BL)
    with jax.set_mesh(make_mesh(MeshConfig(**axes), jax.devices()[:4])):
        found = _outcome("pallas", inputs, mask_BL)
        text = jax.jit(functools.partial(rwkv4.wkv, "pallas")).lower(*inputs, mask_BL).as_text()
    padded = {"gpu": 160, "tpu": 256}[interpreted]
    assert f"tensor<1x{padded}x128xf32>" in text  # one sequence and half of the channels, in whole chunks
    _assert_close(found, expected)


def test_a_layer_runs_the_kernel(interpreted, monkeypatch):
    x_BLD = jax.random.normal(jax.random.key(1), (BATCH, 70, MODEL.width))
    state, shared = rwkv4.init_time_state(MODEL, BATCH, 70), Shared(_padded_left(70))
    params = rwkv4.TimeMix(MODEL, 0).init(jax.random.key(0), x_BLD, None, shared)
    drawn = jax.random.normal(jax.random.key(2), (MODEL.width, MODEL.width)) / 5
    # Keys and outputs start at zero.
    params = jax.tree.map(lambda array: array + (drawn if array.ndim == 2 else drawn[0]), params)
    taken = []

    def outcome(name):
        model = replace(MODEL, rwkv4=Rwkv4Config(algorithm=name))

        def loss(params, x_BLD):
            y_BLD, after, _ = rwkv4.TimeMix(model, 0).apply(params, x_BLD, state, shared)
            return jnp.sin(y_BLD * shared.mask_BL[:, :, None]).sum(), after

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, x_BLD)

    monkeypatch.setattr(kernel, "wkv", lambda *args, run=kernel.wkv: taken.append(args) or run(*args))
    expected = outcome("sequential")
    assert not taken
    _assert_close(outcome("pallas"), expected)
    assert taken


def test_both_kernels_are_lowered_for_their_backend(monkeypatch):
    """By Triton and Mosaic, forward and backward; nothing of either is compiled further, or run."""
    for backend, platform, call in (("gpu", "cuda", "__gpu$xla.gpu.triton"), ("tpu", "tpu", "tpu_custom_call")):
        monkeypatch.setattr(rwkv4, "platform", lambda backend=backend: backend)
        gradient = jax.jit(jax.grad(lambda *inputs: rwkv4.wkv("pallas", *inputs, None)[0].sum(), range(5)))
        checks = [jax.export.DisabledSafetyCheck.custom_call(call)]
        exported = jax.export.export(gradient, platforms=[platform], disabled_checks=checks)(*_inputs(96, 130))
        assert exported.mlir_module().count(f"@{call}(") == 2


def test_the_kernel_is_for_accelerators_and_whole_sequences():
    asked = replace(MODEL, rwkv4=Rwkv4Config(algorithm="pallas"))
    refusal = r"model.rwkv4.algorithm = 'pallas': runs on a gpu or tpu alone, and this is a cpu"
    with pytest.raises(ConfigError, match=refusal):
        algorithms.algorithm(asked, "rwkv4")
    assert [algorithms.algorithm(asked, "rwkv4", backend) for backend in ("gpu", "tpu")] == ["pallas"] * 2
    assert algorithms.algorithm(MODEL, "rwkv4", "tpu") == "pallas"
    assert algorithms.algorithm(replace(MODEL, compute_dtype="float64"), "rwkv4", "tpu") == "associative"
    with pytest.raises(ConfigError, match="computes in float32, and model.compute_dtype is float64"):
        replace(asked, compute_dtype="float64")
    inputs = _inputs(5, 13)
    short = rwkv4.wkv("pallas", *inputs, None)[0]  # not lowered for a CPU, were it the kernel
    np.testing.assert_array_equal(short, rwkv4.wkv("sequential", *inputs, None)[0])

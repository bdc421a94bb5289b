"""The causal depthwise convolution: equal to its sum written out, in one piece or in many, blind to padding."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from research.models.layers import draw
from research.models.state_spaces import convolution
from research.models.state_spaces.convolution import CausalConvolution

BATCH, LENGTH, CHANNELS = 2, 9, 5


def _module_and_params(taps, bias=True):
    module = CausalConvolution(taps, layer=0, bias=bias)
    boxed = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, CHANNELS)), None, None)["params"])
    return module, draw(boxed, jax.random.key(1)), boxed


def _inputs(length=LENGTH):
    return jax.random.normal(jax.random.key(2), (BATCH, length, CHANNELS))


@pytest.mark.parametrize("taps", [1, 3, 4, 12])
def test_equals_the_sum_written_out(taps):
    module, params, _ = _module_and_params(taps)
    x = np.asarray(_inputs())
    expected = np.zeros_like(x) + np.asarray(params["bias"])
    for t in range(LENGTH):
        for j in range(max(0, taps - 1 - t), taps):
            expected[:, t] += np.asarray(params["kernel"])[j] * x[:, t - (taps - 1) + j]
    y, state = module.apply({"params": params}, x, None, None)
    assert state is None
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)  # a dozen float32 terms of order one


@pytest.mark.parametrize("taps", [1, 4, 12])
@pytest.mark.parametrize("pieces", [(9,), (1,) * 9, (2, 6, 1)])
def test_pieces_read_through_the_state_equal_the_whole(taps, pieces):
    module, params, _ = _module_and_params(taps)
    x = _inputs()
    whole, _ = module.apply({"params": params}, x, None, None)
    state, found, start = convolution.init_state(BATCH, taps, CHANNELS, jnp.float32), [], 0
    for length in pieces:
        y, state = module.apply({"params": params}, x[:, start : start + length], state, None)
        found.append(y)
        start += length
    assert state.shape == (BATCH, taps - 1, CHANNELS)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), whole, rtol=1e-6, atol=1e-6)
    assert convolution.state_bytes(taps, CHANNELS, 4) == 4 * math.prod(state.shape[1:])


def test_left_padding_reads_as_nothing_and_writes_nothing():
    module, params, _ = _module_and_params(4)
    x, padding = _inputs(), 7.0 * jnp.ones((BATCH, 3, CHANNELS))
    mask = jnp.arange(LENGTH + 3)[None, :].repeat(BATCH, axis=0) >= 3
    empty = convolution.init_state(BATCH, 4, CHANNELS, jnp.float32)
    whole, after = module.apply({"params": params}, x, empty, None)
    padded, after_padded = module.apply({"params": params}, jnp.concatenate([padding, x], axis=1), empty, mask)
    np.testing.assert_array_equal(padded[:, :3], 0)
    np.testing.assert_array_equal(padded[:, 3:], whole)
    np.testing.assert_array_equal(after_padded, after)


def test_starts_as_torch_does_and_only_the_kernel_decays():
    _, params, boxed = _module_and_params(4)
    for name in ("kernel", "bias"):
        assert float(jnp.abs(params[name]).max()) <= 0.5
    assert {name: box.role for name, box in boxed.items()} == {"kernel": "kernel", "bias": "vector"}
    wide = draw({"kernel": boxed["kernel"].replace(value=jnp.zeros((4, 4000)))}, jax.random.key(0))["kernel"]
    assert float(wide.std()) == pytest.approx(0.5 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("bias", [False, True])
def test_parameters_equal_the_leaves(bias):
    _, params, boxed = _module_and_params(4, bias)
    assert convolution.params(4, CHANNELS, bias) == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert jax.tree.structure(meta.unbox(boxed)) == jax.tree.structure(params)

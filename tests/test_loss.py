"""The chunked cross-entropy and its hand-written gradient equal the plain formula's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import MeshConfig
from research.sharding import make_mesh
from research.training import loss
from research.training.loss import cross_entropy

B, L, D, V = 3, 8, 5, 41


@pytest.fixture(params=[1, 2, 8], ids="{}-chunks".format)
def chunks(request, monkeypatch):
    monkeypatch.setitem(loss.MAX_CHUNK_LOGITS, "cpu", B * (L // request.param) * V)
    return request.param


def _inputs(dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (B, L, D), dtype)
    head = jax.random.normal(keys[1], (D, V))
    targets = jax.random.randint(keys[2], (B, L), 0, V)
    weights = jax.random.bernoulli(keys[3], 0.7, (B, L)).astype(jnp.float32)
    return x, head, targets, weights


def _plain(x, head, targets, weights, z_loss):
    logits = jnp.einsum("bld,dv->blv", x, head)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    nats = log_z - jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return (weights * (nats + z_loss * log_z**2)).sum(), (weights * nats).sum()


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_value_and_gradients_equal_the_formula(chunks, z_loss):
    x, head, targets, weights = _inputs()
    assert loss.chunks_of(B, L, V) == chunks
    sums = cross_entropy(x, head, targets, weights, z_loss)
    expected_loss, expected_nats = _plain(x, head, targets, weights, z_loss)
    # float32: B L = 24 terms of a few nats, each right to a few units in the last place (1.2e-7).
    np.testing.assert_allclose([sums.loss, sums.nats], [expected_loss, expected_nats], rtol=2e-6)
    assert sums.weight == weights.sum()
    got = jax.grad(lambda x, h: 3.0 * cross_entropy(x, h, targets, weights, z_loss).loss, argnums=(0, 1))(x, head)
    want = jax.grad(lambda x, h: 3.0 * _plain(x, h, targets, weights, z_loss)[0], argnums=(0, 1))(x, head)
    for ours, formula in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, formula, rtol=1e-5, atol=1e-5)


def test_brier_score_is_the_squared_distance_to_the_target(chunks):
    x, head, targets, weights = _inputs()
    probabilities = jax.nn.softmax(jnp.einsum("bld,dv->blv", x, head))
    distances = ((probabilities - jax.nn.one_hot(targets, V)) ** 2).sum(axis=-1)
    np.testing.assert_allclose(cross_entropy(x, head, targets, weights).brier, (weights * distances).sum(), rtol=2e-6)


def test_extreme_logits_stay_finite(chunks):
    x, head, targets, weights = _inputs()
    value, gradient = jax.value_and_grad(lambda x: cross_entropy(1e4 * x, head, targets, weights).loss)(x)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_bfloat16_inputs_keep_float32_sums(chunks):
    x, head, targets, weights = _inputs(jnp.bfloat16)
    sums = cross_entropy(x, head, targets, weights)
    assert sums.loss.dtype == jnp.float32
    np.testing.assert_allclose(sums.nats, _plain(x.astype(jnp.float32), head, targets, weights, 0.0)[1], rtol=0.02)


def test_no_full_logits_in_the_program(chunks):
    x, head, targets, weights = _inputs()
    program = jax.jit(jax.grad(lambda x, h: cross_entropy(x, h, targets, weights).loss, argnums=(0, 1)))
    text = program.lower(x, head).as_text()
    assert (f"tensor<{B}x{L}x{V}xf32>" in text) == (chunks == 1)


@pytest.mark.parametrize("mesh", [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=1, tensor=2, sequence=4)])
@pytest.mark.parametrize("chunks_of_a_device", [1, 2])
def test_devices_find_the_sums_and_gradients_of_one(mesh, chunks_of_a_device, monkeypatch):
    """Each in chunks of its own tokens, with its own part of the vocabulary and of the head's width."""
    rows, length, width, words = 4, 8, 6, 42
    keys = jax.random.split(jax.random.key(0), 4)
    x, head = jax.random.normal(keys[0], (rows, length, width)), jax.random.normal(keys[1], (width, words))
    targets = jax.random.randint(keys[2], (rows, length), 0, words)
    weights = jax.random.bernoulli(keys[3], 0.7, (rows, length)).astype(jnp.float32)

    def found(x, head):
        sums, back = jax.vjp(lambda x, h: cross_entropy(x, h, targets, weights, 1e-2), x, head)
        return sums, back(jax.tree.map(jnp.ones_like, sums))

    expected = found(x, head)
    made = make_mesh(mesh)
    own = rows * length // (made.shape["data"] * made.shape["fsdp"] * made.shape["sequence"])
    monkeypatch.setitem(loss.MAX_CHUNK_LOGITS, "cpu", own * words // 2 // chunks_of_a_device)
    with jax.set_mesh(made):
        of_devices = jax.device_get(jax.jit(found)(x, head))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), of_devices, expected)

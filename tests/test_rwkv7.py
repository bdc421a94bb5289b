"""RWKV-7: the delta rule's algorithms are one function, the published recurrence, and it starts as published."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from research.config import AdamWConfig, ConfigError, ModelConfig, RunConfig, Rwkv7Config, TrainingConfig
from research.models import language_model
from research.models.recurrent import delta_rule, rwkv7
from research.optim.optimizer import decayed

B, L, H, K = 2, 19, 2, 5
PATTERN = "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel"
MODEL = ModelConfig(
    vocab_size=31, width=24, depth=4, pattern=PATTERN, rwkv7=Rwkv7Config(8), norm="layer", embedding_norm=True
)


def _tokens(length=L, dtype=np.float64):
    """r, log_decay, k, v, a, b as the layer makes them: decays over the whole of their range, a and b along one key."""
    rng = np.random.default_rng(0)
    r, k, v, direction = rng.normal(size=(4, B, length, H, K))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    rate, decay = rng.uniform(size=(2, B, length, H, K))
    tokens = (r, -math.exp(-0.5) * decay, k, v, -direction, direction * rate)
    return tuple(np.asarray(array, dtype) for array in tokens), np.asarray(rng.normal(size=(B, H, K, K)), dtype)


def _matrices(tokens, state_BHKK):
    """The recurrence as printed (equation 16), with every transition written out as a matrix."""
    outputs = []
    for r, log_decay, k, v, a, b in zip(*(array.swapaxes(0, 1) for array in tokens)):
        transition = np.eye(K) * np.exp(log_decay)[..., None, :] + a[..., :, None] * b[..., None, :]
        state_BHKK = state_BHKK @ transition + v[..., :, None] * k[..., None, :]
        outputs.append((state_BHKK @ r[..., None])[..., 0])
    return np.stack(outputs, axis=1), state_BHKK


def _outcome(algorithm, chunk, tokens, state_BHKK):
    y_BLHK, end_BHKK = delta_rule.ALGORITHMS[algorithm](tokens, state_BHKK, chunk)
    return jnp.sin(y_BLHK).sum() + (end_BHKK**2).sum(), (y_BLHK, end_BHKK)


GRADIENT = jax.jit(jax.grad(_outcome, argnums=(2, 3), has_aux=True), static_argnums=(0, 1))


@pytest.mark.parametrize(("algorithm", "chunk"), [("sequential", 1), *(("chunked", c) for c in (1, 4, 16, L, 64))])
def test_every_algorithm_is_the_published_recurrence_in_values_and_gradients(algorithm, chunk):
    tokens, state_BHKK = _tokens()
    with jax.enable_x64(True):
        gradient, (y_BLHK, end_BHKK) = GRADIENT(algorithm, chunk, tokens, state_BHKK)
        reference, _ = GRADIENT("sequential", 1, tokens, state_BHKK)
    expected_y, expected_end = _matrices(tokens, state_BHKK)
    # float64 sums of some twenty terms of up to a hundred, and a triangle of 19 rows inverted.
    np.testing.assert_allclose(y_BLHK, expected_y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(end_BHKK, expected_end, rtol=1e-12, atol=1e-12)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), gradient, reference)


@pytest.mark.parametrize("chunk", [16, 64])
def test_chunks_keep_float32_where_every_decay_is_the_strongest_or_every_key_the_same(chunk):
    tokens, state_BHKK = _tokens(length=128)
    r, log_decay, k, v, a, b = tokens
    strongest = (r, np.full_like(log_decay, -math.exp(-0.5)), k, v, a, b)
    direction = np.broadcast_to(np.eye(K)[0], a.shape)
    same_key = (r, np.zeros_like(log_decay), k, v, -direction, direction)
    for extreme in (strongest, same_key):
        expected, _ = _matrices(extreme, state_BHKK)
        single = tuple(np.asarray(array, np.float32) for array in extreme)
        y_BLHK, _ = delta_rule.chunked(single, jnp.asarray(state_BHKK, jnp.float32), chunk)
        # exp of a sum of 64 decays in float32: an exponent of 39 rounded to 2e-6, and as much again in its inverse.
        np.testing.assert_allclose(y_BLHK, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def _of_layer(params, layer, part):
    if layer == 0:
        return params["prefix"][f"layer0_{part}"]
    if "periods" in params:
        return jax.tree.map(lambda stacked: stacked[layer - 1], params["periods"][f"layer0_{part}"])
    return params[f"period{layer - 1}"][f"layer0_{part}"]


@pytest.mark.parametrize("scan_layers", [False, True])
def test_initial_values_are_the_published_ones_in_every_layer(scan_layers):
    params = jax.device_get(language_model.init(replace(MODEL, scan_layers=scan_layers), jax.random.key(0)))
    assert 0.9e-4 < np.abs(params["embedding"]).max() <= 1e-4
    depth, width, head_dim = MODEL.depth, MODEL.width, MODEL.rwkv7.head_dim
    i = np.arange(width)
    line = i / (width - 1) - 0.5
    within = (i % head_dim - (head_dim - 1) / 2) / ((head_dim - 1) / 2)
    curve = within * np.abs(within)
    powers = {"receptance": 0.2, "decay": 0.9, "key": 0.7, "value": 0.7, "rate": 0.9, "gate": 0.2}
    for layer in range(depth):
        time, channel = (_of_layer(params, layer, part) for part in ("mixer", "channel"))
        rise, fall = layer / (depth - 1), 1 - layer / depth
        expected = {f"{name}_mix": 1 - (i / width) ** (power * fall) for name, power in powers.items()}
        expected["decay_bias"] = -6 + 6 * (i / (width - 1)) ** (1 + rise**0.3) + 0.5 + 2.5 * curve
        expected["rate_bias"] = -0.19 + 0.3 * curve + 0.4 * line
        expected |= {"share_bias": 0.73 - 0.4 * line} if layer else {}
        expected |= {"removal": 0.71 - 0.1 * line, "key_rate": 1.02 + 0 * line, "bonus": -0.04 + 0 * line}
        for name, vector in expected.items():
            np.testing.assert_allclose(time[name].ravel(), vector, atol=2e-6, err_msg=name)
        np.testing.assert_allclose(channel["key_mix"], 1 - (i / width) ** (fall**4), atol=2e-6)
        for name, bound in (("receptance", 0.5), ("value", 0.5), ("key", 0.05)):
            assert 0.8 * bound * width**-0.5 < np.abs(time[name]).max() <= bound * width**-0.5
        assert not any(time[name].any() for name in time if name.endswith("_down") or name == "out")
        assert not channel["value"].any()
        up_RD = time["gate_up"].reshape(-1, width)  # more rows than columns at this width
        np.testing.assert_allclose(up_RD.T @ up_RD, 0.01 * up_RD.shape[0] / width * np.eye(width), atol=1e-6)
        assert ("share_bias" in time) == (layer > 0)


def test_decays_start_within_their_published_range():
    """Section 3: from exp(-exp(-1/2)) = 0.545 to 1; at the start the first channels forget least."""
    formula = rwkv7._Decay(64)
    bias = formula(jnp.arange(768), 768, jnp.zeros(()), jnp.ones(()))
    decay = np.exp(-math.exp(-0.5) / (1 + np.exp(-np.asarray(bias, np.float64))))
    assert 0.545 < decay.min() < 0.6 and 0.999 < decay.max() < 1
    assert np.mean(decay[:64]) > np.mean(decay[-64:])


def test_only_large_matrices_decay():
    marks = traverse_util.flatten_dict(decayed(language_model.abstract(MODEL)), sep="/")
    chosen = {path.split("/")[-1] for path, mark in marks.items() if mark}
    assert chosen == {"embedding", "head", "receptance", "key", "value", "out"}


def test_the_state_has_one_size_for_every_length():
    states = [language_model.init_states(MODEL, 1, length) for length in (128, 8192)]
    assert jax.tree.map(lambda leaf: leaf.shape, states[0]) == jax.tree.map(lambda leaf: leaf.shape, states[1])
    per_layer = rwkv7.time_state_bytes(MODEL, 9, 4) + rwkv7.channel_state_bytes(MODEL, 9, 4)
    assert per_layer == 4 * MODEL.width * (8 + 2)  # a row of 8 numbers a channel, and two shifted tokens


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 28}, "model.rwkv7.head_dim = 8: must divide model.width = 28"),
        ({"pattern": "rwkv7_time:rwkv7_channel"}, "must have one rwkv7_first below each rwkv7_time"),
        (
            {"pattern": "rwkv7_first, rwkv7_time", "scan_layers": True},
            "must have one rwkv7_first below each rwkv7_time",
        ),
        ({"pattern": "rwkv7_time | rwkv7_first"}, "must have one rwkv7_first below each rwkv7_time"),
    ],
)
def test_models_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        replace(MODEL, **fields)


def test_a_chunk_longer_than_the_sequence_or_than_float32_allows_is_refused():
    with pytest.raises(ConfigError, match=r"model.rwkv7.chunk = 65: must lie between 1 and 64"):
        Rwkv7Config(chunk=65)
    with pytest.raises(ConfigError, match=r"model.rwkv7.chunk = 16: must not exceed training.sequence_length = 8"):
        _run_of_length_8("chunked")
    for algorithm in ("sequential", "auto"):  # auto: one chunk of 8
        assert _run_of_length_8(algorithm).model.rwkv7.chunk == 16


def _run_of_length_8(algorithm):
    model = replace(MODEL, vocab_size=259, rwkv7=Rwkv7Config(8, algorithm=algorithm))
    return RunConfig(model=model, optimizer=AdamWConfig(), training=TrainingConfig(sequence_length=8))

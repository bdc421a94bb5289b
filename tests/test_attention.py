"""What attention and the mlp can be told to be, each against its formula written out."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxpr_flops
import numpy as np
import pytest
from scipy.special import erf

from research.config import (
    AttentionConfig,
    ConfigError,
    MlpConfig,
    ModelConfig,
    RopeScaling,
    from_json,
    override,
    to_json,
)
from research.models import language_model
from research.models.attention.positions import rotary_angles, rotary_frequencies, rotate
from research.models.layers import LayerNorm
from research.models.mlp import ACTIVATIONS
from research.plan import model_cost

RELATIVE = ModelConfig(
    vocab_size=61,
    width=12,
    depth=1,
    pattern="attention",
    attention=AttentionConfig(4, 2, 6, positions="relative", window=5),
    compute_dtype="float64",
)
LOGITS = jax.jit(language_model.logits, static_argnums=0)
STEP = jax.jit(language_model.decode_step, static_argnums=0)


def _params(model, dtype=np.float64):
    drawn = language_model.init(replace(model, compute_dtype="float32"), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), drawn)


def _transformer_xl(model, params, tokens_L):
    """One layer of one sequence by loops: Dai 2019, section 3.3, equation for A_ij^rel, heads grouped."""
    cfg, layer = model.attention, params["period0"]
    p = layer["layer0_mixer"]
    x_LD = params["embedding"][tokens_L]
    normed_LD = (
        x_LD / np.sqrt((x_LD**2).mean(-1, keepdims=True) + model.norm_epsilon) * layer["layer0_mixer_norm"]["gain"]
    )
    out_LD = np.zeros_like(x_LD)
    frequencies = 1e4 ** (-np.arange(0, model.width, 2) / model.width)
    for h in range(cfg.heads):
        g = h // (cfg.heads // cfg.kv_heads)
        query, key, value = (normed_LD @ p[n][:, i] for n, i in (("query", h), ("key", g), ("value", g)))
        for i in range(len(tokens_L)):
            seen = range(max(0, i - cfg.window + 1), i + 1)
            scores = []
            for j in seen:
                wave_D = np.concatenate([np.sin((i - j) * frequencies), np.cos((i - j) * frequencies)])
                content = (query[i] + p["content_bias"][h]) @ key[j]
                position = (query[i] + p["distance_bias"][h]) @ (wave_D @ p["distance"][:, h])
                scores.append((content + position) / np.sqrt(cfg.head_dim))
            weights = np.exp(scores) / np.exp(scores).sum()
            out_LD[i] += sum(w * value[j] for w, j in zip(weights, seen)) @ p["out"][h]
    x_LD = x_LD + out_LD
    x_LD = x_LD / np.sqrt((x_LD**2).mean(-1, keepdims=True) + model.norm_epsilon) * params["final_norm"]["gain"]
    return x_LD @ params["head"]


def test_relative_positions_are_transformer_xl():
    params = _params(RELATIVE)
    tokens = np.random.default_rng(0).integers(0, 61, (2, 11))
    with jax.enable_x64(True):
        logits = np.asarray(LOGITS(RELATIVE, params, tokens))
    for row in range(2):
        np.testing.assert_allclose(logits[row], _transformer_xl(RELATIVE, params, tokens[row]), rtol=0, atol=1e-12)


def test_relative_positions_decode_and_hide_padding_as_all_do():
    model = replace(RELATIVE, depth=2, pattern="attention:mlp", compute_dtype="float32")
    params = _params(model, np.float32)
    tokens = np.random.default_rng(0).integers(0, 61, (2, 11))
    whole = LOGITS(model, params, tokens)
    padded, mask = np.pad(tokens, ((0, 0), (3, 0))), np.arange(14)[None].repeat(2, axis=0) >= 3
    np.testing.assert_allclose(LOGITS(model, params, padded, mask)[:, 3:], whole, rtol=2e-5, atol=2e-5)
    logits, states = STEP(model, params, padded[:, :7], language_model.init_states(model, 2, 14), mask[:, :7])
    for t in range(3, 11):
        np.testing.assert_allclose(logits, whole[:, t], rtol=2e-5, atol=2e-5)
        if t < 10:
            logits, states = STEP(model, params, tokens[:, t + 1 : t + 2], states)


def test_relative_positions_count_one_sequence_exactly():
    model = replace(RELATIVE, depth=3, compute_dtype="float32")
    params = language_model.unbox(language_model.abstract(model))
    tokens = jax.ShapeDtypeStruct((1, 9), jnp.int32)
    counted = jaxpr_flops.count(lambda p, t: language_model.logits(model, p, t), params, tokens)
    assert counted == 9 * model_cost(model, 9).forward_flops_per_token
    assert model_cost(model, 9).params == sum(leaf.size for leaf in jax.tree.leaves(params))
    with pytest.raises(ConfigError, match="model.width = 13: must be even"):
        replace(model, width=13)


def test_a_fraction_of_the_channels_is_turned():
    x = jax.random.normal(jax.random.key(0), (2, 7, 3, 16))
    angles = rotary_angles(jnp.arange(7)[None], rotary_frequencies(4, 1e4), jnp.float32)
    turned = rotate(x, angles, "half")
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(turned[..., :4], rotate(x[..., :4], angles, "half"))
    with pytest.raises(ConfigError, match=r"model.attention.head_dim = 12: times rope_fraction = 0.25 must be even"):
        AttentionConfig(head_dim=12, rope_fraction=0.25)


def test_scaled_frequencies_keep_short_waves_and_slow_long_ones():
    plain, scaled = (rotary_frequencies(128, 5e5, scaling) for scaling in (None, RopeScaling()))
    waves = 2 * np.pi / plain
    np.testing.assert_array_equal(scaled[waves < 8192 / 4], plain[waves < 8192 / 4])
    np.testing.assert_allclose(scaled[waves > 8192], plain[waves > 8192] / 8, rtol=1e-15)
    between = (waves > 8192 / 4) & (waves < 8192)
    assert between.any() and ((scaled < plain) & (scaled > plain / 8))[between].all()
    with pytest.raises(ConfigError, match=r"high_factor = 1.0: must be above low_factor = 1.0"):
        RopeScaling(high_factor=1.0)


def test_scaling_is_set_as_one_object_and_survives_json():
    model = override(ModelConfig(), ['attention.rope_scaling={"factor": 32}'])
    assert model.attention.rope_scaling == RopeScaling(factor=32.0)
    assert from_json(ModelConfig, to_json(model)) == model


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("swiglu", lambda up, gate: gate / (1 + np.exp(-gate)) * up),
        ("geglu", lambda up, gate: gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up),
        ("gelu", lambda up, gate: up / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))),
        ("gelu_exact", lambda up, gate: up / 2 * (1 + erf(up / np.sqrt(2)))),
        ("relu", lambda up, gate: np.maximum(up, 0)),
        ("relu_squared", lambda up, gate: np.maximum(up, 0) ** 2),
    ],
)
def test_activations_are_their_formulas(activation, formula):
    up, gate = np.random.default_rng(0).normal(size=(2, 50))
    with jax.enable_x64(True):
        found = ACTIVATIONS[activation](gate) * up if MlpConfig(1, activation).gated else ACTIVATIONS[activation](up)
    np.testing.assert_allclose(found, formula(up, gate), rtol=0, atol=1e-14)
    assert set(ACTIVATIONS) == {"swiglu", "geglu", "gelu", "gelu_exact", "relu", "relu_squared"}


def test_an_unbiased_layer_norm_is_one_whose_bias_is_zero():
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    gain = jax.random.normal(jax.random.key(1), (8,))
    biased = LayerNorm(1e-5).apply({"params": {"gain": gain, "bias": jnp.zeros(8)}}, x)
    np.testing.assert_array_equal(LayerNorm(1e-5, biased=False).apply({"params": {"gain": gain}}, x), biased)


def test_a_shared_norm_is_one_that_both_mixers_have():
    shared = ModelConfig(
        vocab_size=61, width=12, depth=2, attention=AttentionConfig(2, 1, 6), mlp=MlpConfig(20),
        parallel_mixers=True, shared_norm=True,
    )  # fmt: skip
    params = language_model.init(shared, jax.random.key(0))
    both = {key: dict(value) if key.startswith("period") else value for key, value in params.items()}
    for i in range(2):
        both[f"period{i}"]["layer0_mixer_norm"] = both[f"period{i}"].pop("layer0_norm")
        both[f"period{i}"]["layer0_channel_norm"] = both[f"period{i}"]["layer0_mixer_norm"]
    tokens = np.arange(10).reshape(2, 5)
    separate = LOGITS(replace(shared, shared_norm=False), both, tokens)
    np.testing.assert_allclose(LOGITS(shared, params, tokens), separate, rtol=1e-6, atol=1e-6)
    with pytest.raises(ConfigError, match="model.shared_norm = True: needs parallel_mixers"):
        replace(shared, parallel_mixers=False)

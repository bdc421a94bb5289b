"""The language model: causal, the same in every form of execution, and the same decoded from a state."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import cases, drawn_by_numpy, random_model

from research.config import AttentionConfig, ConfigError, MlpConfig, ModelConfig
from research.models import language_model, layers
from research.models.attention.positions import rotary_angles, rotary_frequencies, rotate

MODEL = ModelConfig(vocab_size=97, width=24, depth=4, attention=AttentionConfig(4, 2, 6), mlp=MlpConfig(40))
LOGITS = jax.jit(language_model.logits, static_argnums=0)  # configs are hashable values
STEP = jax.jit(language_model.decode_step, static_argnums=0)
# float32 sums of a few hundred terms of order one, in another order: a few hundred units in the last place.
REORDERED = {"rtol": 2e-5, "atol": 2e-5}


def _params(model, seed=0):
    return drawn_by_numpy(model, seed)


def _moved(params, by=0.1):
    """Every parameter moved off its start: some architectures start with output matrices of zeros, which hide all."""
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda leaf: leaf + (by * rng.normal(size=leaf.shape)).astype(np.float32), params)


def _tokens(model, batch=2, length=11, seed=1):
    return jax.random.randint(jax.random.key(seed), (batch, length), 0, model.vocab_size)


@pytest.mark.parametrize(("seed", "pattern"), cases(6, 2))
def test_no_position_sees_the_future(seed, pattern):
    model = random_model(seed, pattern)
    params, tokens = _moved(_params(model)), _tokens(model)
    changed = tokens.at[:, 7:].set((tokens[:, 7:] + 1) % model.vocab_size)
    logits, other = (LOGITS(model, params, t) for t in (tokens, changed))
    if any(mixer in ("s4", "h3") for layer in model.layers for mixer in layer):
        # A Fourier transform spreads every position's rounding, and nothing else (test_ssm has this in float64).
        np.testing.assert_allclose(logits[:, :7], other[:, :7], **REORDERED)
    else:
        np.testing.assert_array_equal(logits[:, :7], other[:, :7])
    assert not np.allclose(logits[:, 7:], other[:, 7:])


def test_window_hides_what_is_older():
    model = replace(MODEL, depth=1, attention=AttentionConfig(4, 2, 6, window=3))
    params, tokens = _params(model), _tokens(model)
    changed = tokens.at[:, 2].set((tokens[:, 2] + 1) % model.vocab_size)
    logits, other = (LOGITS(model, params, t) for t in (tokens, changed))
    np.testing.assert_array_equal(logits[:, 5:], other[:, 5:])
    assert not np.allclose(logits[:, 4], other[:, 4])


@pytest.mark.parametrize(("seed", "pattern"), cases(6, 2))
def test_decoding_from_the_state_equals_the_whole_sequence(seed, pattern):
    model = random_model(seed, pattern)
    params, tokens = _moved(_params(model)), _tokens(model)
    whole = LOGITS(model, params, tokens)
    states = language_model.init_states(model, 2, tokens.shape[1])
    logits, states = STEP(model, params, tokens[:, :4], states)  # the prompt, in one call
    np.testing.assert_allclose(logits, whole[:, 3], **REORDERED)
    for t in range(4, tokens.shape[1]):
        logits, states = STEP(model, params, tokens[:, t : t + 1], states)
        np.testing.assert_allclose(logits, whole[:, t], **REORDERED)


@pytest.mark.parametrize(("seed", "pattern"), cases(2, 1))
def test_padding_on_the_left_changes_nothing_at_the_tokens(seed, pattern):
    model = replace(random_model(seed, pattern), max_positions=16)
    params, tokens = _moved(_params(model)), _tokens(model)
    padded = jnp.concatenate([jnp.full((2, 5), 7), tokens], axis=1)
    mask = jnp.arange(16)[None, :].repeat(2, axis=0) >= 5
    whole = LOGITS(model, params, tokens)
    np.testing.assert_allclose(LOGITS(model, params, padded, mask)[:, 5:], whole, **REORDERED)
    states = language_model.init_states(model, 2, 16)
    logits, states = STEP(model, params, padded[:, :9], states, mask[:, :9])
    np.testing.assert_allclose(logits, whole[:, 3], **REORDERED)
    logits, _ = STEP(model, params, padded[:, 9:10], states)
    np.testing.assert_allclose(logits, whole[:, 4], **REORDERED)


def test_pattern_with_a_prefix_names_every_layer():
    model = ModelConfig(depth=7, pattern="attention, 2*attention:mlp | attention:mlp, attention")
    assert model.layers == (
        *[("attention",), ("attention", "mlp"), ("attention", "mlp")],
        *[("attention", "mlp"), ("attention",)] * 2,
    )
    with pytest.raises(ConfigError, match=r"model.depth = 6: must be 3 plus a multiple of the 2 layers"):
        replace(model, depth=6)


@dataclass(frozen=True)
class _LayerNumber:
    def __call__(self, key, shape, layer):
        return jnp.full(shape, layer, jnp.float32)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_initialisers_are_told_their_layer(scan_layers):
    model = replace(MODEL, depth=5, pattern="attention | attention, attention:mlp", scan_layers=scan_layers)
    boxed = jax.tree.map(
        lambda box: box.replace(init=_LayerNumber()), language_model.abstract(model), is_leaf=layers.is_boxed
    )
    params = layers.draw(boxed, jax.random.key(0))
    if scan_layers:
        found = [params["periods"][f"layer{i}_mixer"]["out"][:, 0, 0, 0] for i in (0, 1)]
        np.testing.assert_array_equal(found, [[1, 3], [2, 4]])
    else:
        found = [params[f"period{j}"][f"layer{i}_mixer"]["out"][0, 0, 0] for j in (0, 1) for i in (0, 1)]
        np.testing.assert_array_equal(found, [1, 2, 3, 4])
    assert (params["prefix"]["layer0_mixer"]["out"] == 0).all()


@pytest.mark.parametrize("pattern_length", [1, 2])
def test_scanned_and_written_out_are_one_function(pattern_length):
    written = replace(MODEL, pattern=",".join(["attention:mlp"] * pattern_length))
    scanned = replace(written, scan_layers=True)
    params = _params(written)
    stacked = {key: value for key, value in params.items() if not key.startswith("period")}
    periods = [params[f"period{i}"] for i in range(written.depth // pattern_length)]
    stacked["periods"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *periods)
    tokens = _tokens(MODEL)
    expected = LOGITS(written, params, tokens)
    np.testing.assert_allclose(LOGITS(scanned, stacked, tokens), expected, **REORDERED)
    assert jax.tree.structure(stacked) == jax.tree.structure(_params(scanned))


@pytest.mark.parametrize("remat", ["dots", "attention", "full"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_remat_changes_no_gradient(remat, scan_layers):
    plain = replace(MODEL, scan_layers=scan_layers)
    params, tokens = _params(plain), _tokens(MODEL)

    def gradient(model):
        return jax.jit(jax.grad(lambda p: LOGITS(model, p, tokens).var()))(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        gradient(plain),
        gradient(replace(plain, remat=remat)),
    )


def test_rotary_conventions_are_one_model_under_a_permutation():
    angles = rotary_angles(jnp.arange(7)[None, :], rotary_frequencies(8, 1e4), jnp.float32)
    x = jax.random.normal(jax.random.key(0), (2, 7, 3, 8))
    order = np.arange(8).reshape(2, 4).T.ravel()  # half's channel for each interleaved one
    np.testing.assert_array_equal(rotate(x[..., order], angles, "interleaved"), rotate(x, angles, "half")[..., order])


def test_rotation_depends_on_distance_alone():
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))

    def score(i, j):
        angles = (rotary_angles(jnp.array([[at]]), rotary_frequencies(8, 1e4), jnp.float32) for at in (i, j))
        return float(jnp.vdot(*(rotate(v, angle, "half") for v, angle in zip((q, k), angles))))

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)  # angles of 100 radians keep 5 digits in float32


def test_grouped_heads_equal_repeated_ones():
    params, tokens = _params(MODEL), _tokens(MODEL)
    full = replace(MODEL, attention=AttentionConfig(4, 4, 6))

    def repeat(path, leaf):
        grouped = jax.tree_util.keystr(path).split("'")[-2] in ("key", "value")
        return jnp.repeat(leaf, 2, axis=1) if grouped else leaf

    repeated = jax.tree_util.tree_map_with_path(repeat, params)
    np.testing.assert_allclose(LOGITS(full, repeated, tokens), LOGITS(MODEL, params, tokens), **REORDERED)


def test_bfloat16_compute_keeps_float32_parameters_and_stays_near():
    half = replace(MODEL, compute_dtype="bfloat16")
    params, tokens = _params(half), _tokens(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    exact, rounded = LOGITS(MODEL, params, tokens), LOGITS(half, params, tokens)
    assert rounded.dtype == jnp.float32
    relative = float(jnp.linalg.norm(exact - rounded) / jnp.linalg.norm(exact))
    assert 1e-4 < relative < 0.05  # 8 bits of mantissa, a dozen roundings in a row


def test_unknown_mixers_are_named():
    with pytest.raises(ConfigError, match=r"unknown mixer 'atention'. Nearest: attention"):
        language_model.abstract(replace(MODEL, pattern="atention:mlp"))
    for pattern, message in (
        ("mlp", "'mlp' is a channel mixer"),
        ("gru:gru", "'gru' is a sequence mixer"),
    ):
        with pytest.raises(ConfigError, match=message):
            language_model.abstract(replace(MODEL, pattern=pattern))


def test_initialisation_has_the_scale_it_states():
    model = ModelConfig(width=256, depth=8)
    params = language_model.init(model, jax.random.key(0))["period0"]
    assert params["layer0_mixer"]["query"].std() == pytest.approx(256**-0.5, rel=0.02)
    assert params["layer0_channel"]["down"].std() == pytest.approx(model.mlp.hidden**-0.5 * 16**-0.5, rel=0.02)
    assert (params["layer0_mixer_norm"]["gain"] == 1).all()


def test_a_sequence_longer_than_the_position_table_is_refused():
    model = replace(MODEL, max_positions=10)
    params = language_model.unbox(language_model.abstract(model))
    with pytest.raises(ConfigError, match=r"model.max_positions = 10: must be at least the 11 tokens"):
        jax.eval_shape(lambda p: language_model.logits(model, p, jnp.zeros((1, 11), jnp.int32)), params)
    jax.eval_shape(lambda p: language_model.logits(model, p, jnp.zeros((1, 10), jnp.int32)), params)

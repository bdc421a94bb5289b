"""Heads that judge: their numbers are a plain product, the same while decoding, and counted exactly."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import jaxpr_flops
import numpy as np
import pytest
from random_configs import perturbed

from research.config import ConfigError, HeadsConfig, ModelConfig, fingerprint, override
from research.models import language_model
from research.models.heads import last_of_row
from research.models.layers import is_boxed
from research.plan import model_cost
from tests.architectures import ARCHITECTURES

BOTH = HeadsConfig(scalar=True, classes=3)
JUDGED = [replace(ARCHITECTURES[name], heads=BOTH) for name in ("gpt", "rwkv7", "encoder_decoder", "scanned")]
ROWS, LENGTH = 2, 6


def _ids(model):
    return f"{model.pattern}{' scanned' if model.scan_layers else ''}"


def _inputs(model):
    rng = np.random.default_rng(0)
    tokens = jnp.asarray(rng.integers(0, model.vocab_size, (ROWS, LENGTH)))
    if model.encoder is None:
        return tokens, None
    sources = jnp.asarray(rng.integers(0, model.vocab_size, (ROWS, 8)))
    return tokens, (sources, jnp.arange(8)[None] < jnp.array([[8], [5]]))


@pytest.mark.parametrize("model", JUDGED, ids=_ids)
def test_what_a_head_says_is_a_product_and_decoding_says_the_same(model):
    params, (tokens, sources) = perturbed(model), _inputs(model)
    x_BLD, heads, _ = jax.jit(language_model.hidden, static_argnums=0)(model, params, tokens, None, sources)
    scores = jax.jit(language_model.scores, static_argnums=0)(model, params, tokens, None, sources)
    np.testing.assert_allclose(scores, np.asarray(x_BLD) @ np.asarray(params["scalar_head"]), rtol=1e-5, atol=1e-5)
    read = jnp.array([[1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 0]], bool)
    logits = jax.jit(language_model.class_logits, static_argnums=0)(model, params, tokens, read, None, sources)
    last = np.asarray(x_BLD)[[0, 1], [2, 4]]
    np.testing.assert_allclose(logits, last @ np.asarray(params["class_head"]), rtol=1e-5, atol=1e-5)

    step = jax.jit(language_model.scored_step, static_argnums=0)
    states = language_model.init_states(model, ROWS, LENGTH)
    words, found, states = step(model, params, tokens[:, :2], states, None, sources)
    np.testing.assert_allclose(found, scores[:, :2], rtol=1e-4, atol=1e-4)
    for t in range(2, LENGTH):
        words, found, states = step(model, params, tokens[:, t : t + 1], states)
        np.testing.assert_allclose(found, scores[:, t : t + 1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(words, x_BLD[:, -1] @ heads.vocabulary_DV, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", JUDGED, ids=_ids)
def test_heads_are_counted_and_change_nothing_else(model):
    params = language_model.unbox(language_model.abstract(model))
    boxes = jax.tree.leaves(language_model.abstract(model), is_leaf=is_boxed)
    without = replace(model, heads=HeadsConfig())
    counted = sum(math.prod(box.value.shape) for box in boxes if box.role != "balance")
    assert model_cost(model, LENGTH).params == counted == model_cost(without, LENGTH).params + 4 * model.width
    assert model_cost(model, LENGTH).embedding_params == model_cost(without, LENGTH).embedding_params
    assert set(params) - set(language_model.abstract(without)) == {"scalar_head", "class_head"}
    assert "scalar_head" not in params.get("encoder", {})


@pytest.mark.parametrize(
    "model", [replace(ARCHITECTURES[name], heads=BOTH) for name in ("gpt", "lstm", "encoder_decoder")], ids=_ids
)
def test_flops_of_each_head_equal_the_jaxpr(model):
    params = language_model.unbox(language_model.abstract(model))
    tokens, sources = _inputs(model)
    read = jnp.ones((ROWS, LENGTH), bool)
    of = {
        "vocabulary": lambda p, t: language_model.logits(model, p, t, sources=sources),
        "scalar": lambda p, t: language_model.scores(model, p, t, sources=sources),
        "classes": lambda p, t: language_model.class_logits(model, p, t, read, sources=sources),
    }
    for head, function in of.items():
        counted = jaxpr_flops.count(function, params, tokens)
        assert 3 * counted == ROWS * model_cost(model, LENGTH, (head,)).training_flops_per_sequence, head
    alone = model_cost(model, LENGTH, ())
    together = model_cost(model, LENGTH, ("vocabulary", "scalar", "classes"))
    added = together.training_flops_per_sequence - alone.training_flops_per_sequence
    assert added == 6 * model.width * (LENGTH * (model.vocab_size + 1) + 3)


def test_a_head_leaves_every_other_parameter_as_it_starts():
    model = ARCHITECTURES["transformer"]
    plain = language_model.init(model, jax.random.key(0))
    judged = language_model.init(replace(model, heads=BOTH), jax.random.key(0))
    rest = {name: leaf for name, leaf in judged.items() if not name.endswith("_head")}
    jax.tree.map(np.testing.assert_array_equal, rest, plain)


def test_the_last_of_a_row_is_one_token_or_none():
    read = jnp.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    expected = [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_array_equal(last_of_row(read), np.array(expected, bool))


def test_heads_name_a_model_where_it_has_them():
    plain = ModelConfig()
    assert fingerprint(replace(plain, heads=HeadsConfig())) == fingerprint(plain)
    others = [override(plain, [text]) for text in ("heads.scalar=true", "heads.classes=2", "heads.classes=3")]
    assert len({fingerprint(model) for model in (plain, *others)}) == 4


def test_a_head_that_is_not_there_is_asked_for_by_its_field():
    model = ARCHITECTURES["transformer"]
    params = language_model.init(model, jax.random.key(0))
    tokens = jnp.zeros((1, 2), jnp.int32)
    with pytest.raises(ConfigError, match=r"model.heads.scalar = False: the model has no scalar head. Fix: set it"):
        language_model.scores(model, params, tokens)
    with pytest.raises(ConfigError, match=r"model.heads.classes = None: the model has no class head. Fix: set it"):
        language_model.class_logits(model, params, tokens, tokens == 0)
    with pytest.raises(ConfigError, match=r"model.heads.classes = 1: must be at least 2"):
        HeadsConfig(classes=1)

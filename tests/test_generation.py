"""Greedy decoding is the argmax of whole forward passes, whatever the model's state is."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import drawn_by_numpy

from research.config import AttentionConfig, ConfigError, MlpConfig, ModelConfig
from research.generation.greedy import greedy
from research.models import language_model

MODEL = ModelConfig(vocab_size=61, width=24, depth=2, attention=AttentionConfig(4, 2, 6), mlp=MlpConfig(40))
LOGITS = jax.jit(language_model.logits, static_argnums=0)


def _prompt(model, length=5):
    return np.random.default_rng(0).integers(0, model.vocab_size, (3, length), np.int32)


def _assert_greedy(model, params, prompt_BL, found, **inputs):
    """Every token is the likeliest after those before it; one pass over the grown sequences says all of them."""
    grown_BL = np.concatenate([prompt_BL, found], axis=1)
    logits = LOGITS(model, params, grown_BL, **inputs)[:, prompt_BL.shape[1] - 1 : -1]
    np.testing.assert_array_equal(found, logits.argmax(-1))


@pytest.mark.parametrize("pattern", ["attention:mlp", "mamba, attention:mlp"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_each_token_is_the_likeliest_after_those_before_it(pattern, scan_layers):
    model = replace(MODEL, pattern=pattern, scan_layers=scan_layers, tied_embeddings=True)
    params = drawn_by_numpy(model)
    found = greedy(model, params, _prompt(model), 9)
    assert found.shape == (3, 9) and found.dtype == jnp.int32
    _assert_greedy(model, params, _prompt(model), found)
    np.testing.assert_array_equal(greedy(model, params, _prompt(model), 1), found[:, :1])


def test_padded_prompts_are_continued_as_if_alone():
    model = replace(MODEL, max_positions=12)
    params = drawn_by_numpy(model)
    prompt, lengths = _prompt(model), np.array([5, 3, 1])
    mask = np.arange(5)[None] >= 5 - lengths[:, None]
    together = greedy(model, params, prompt, 7, mask)
    for row, length in enumerate(lengths):
        alone = greedy(model, params, prompt[row : row + 1, 5 - length :], 7)
        np.testing.assert_array_equal(together[row], alone[0])


def test_an_encoder_decoder_answers_its_sources():
    model = replace(MODEL, pattern="attention:mlp -> attention, cross_attention:mlp", source_length=4)
    params = drawn_by_numpy(model)
    sources = _prompt(model, 4), np.arange(4)[None] < np.array([4, 3, 2])[:, None]
    found = greedy(model, params, _prompt(model, 1), 6, sources=sources)
    _assert_greedy(model, params, _prompt(model, 1), found, sources=sources)


def test_an_answer_beyond_the_position_table_is_refused():
    model = replace(MODEL, max_positions=8)
    with pytest.raises(ConfigError, match="model.max_positions = 8: must be at least the 9 tokens"):
        greedy(model, None, _prompt(model), 4)
    with pytest.raises(ConfigError, match="new_tokens = 0: must be at least 1"):
        greedy(model, None, _prompt(model), 0)

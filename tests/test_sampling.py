"""How a token is chosen: the draws have the stated probabilities, the cuts keep what a sort would keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from research.config import ConfigError, SamplingConfig
from research.generation.choice import choose, constrained, distribution, draw, likeliest
from research.generation.rows import row_keys

LOGITS = 3 * np.random.default_rng(0).normal(size=(200, 97)).astype(np.float32)
COUNT = 20_000
# The least chance of a fair sampler failing a test at its one seed; the seed is fixed, so it passes or fails for good.
LEAST_P = 1e-3


def _kept(logits, **cuts):
    return np.isfinite(distribution(SamplingConfig(**cuts), jnp.asarray(logits)))


@pytest.mark.parametrize("vocab_size", [2, 7, 97])
def test_draws_have_the_exact_probabilities(vocab_size):
    logits = LOGITS[0, :vocab_size] / 2
    keys = row_keys(5, range(COUNT // 4), range(4))
    tokens = np.asarray(draw(jnp.broadcast_to(logits[None], (COUNT, vocab_size)), keys))
    p = np.exp(logits.astype(np.float64))
    assert chisquare(np.bincount(tokens, minlength=vocab_size), COUNT * p / p.sum()).pvalue > LEAST_P


def test_draws_after_all_transforms_have_the_probabilities_of_what_is_kept():
    config = SamplingConfig(
        bias=((3, 2.0),), repetition_penalty=1.5, banned=(5,), min_new_tokens=2, temperature=0.8, top_k=20, top_p=0.9
    )
    logits, present = LOGITS[1], np.isin(np.arange(97), (2, 8, 30))
    tokens = choose(
        config,
        jnp.broadcast_to(logits[None], (COUNT, 97)),
        row_keys(1, range(COUNT), [0]),
        jnp.broadcast_to(present[None], (COUNT, 97)),
        end_ids=(9,),
        step=1,
    ).token_B
    bent = logits.astype(np.float64)
    bent[3] += 2
    bent[present] = np.where(bent[present] < 0, bent[present] * 1.5, bent[present] / 1.5)
    bent[[5, 9]] = -np.inf
    p = np.exp(bent / 0.8)
    order = np.argsort(-p)[:20]
    shares = p[order] / p[order].sum()
    kept = order[np.cumsum(shares) - shares < 0.9]
    counts = np.bincount(tokens, minlength=97)
    assert counts.sum() == counts[kept].sum() and 5 < len(kept) < 20
    assert chisquare(counts[kept], COUNT * p[kept] / p[kept].sum()).pvalue > LEAST_P


def test_draws_of_rows_and_steps_are_independent():
    """Neighbouring seeds, prompts and samples share nothing that a table of pairs would show."""
    logits = jnp.zeros((COUNT, 4))
    first, second, third = (
        np.asarray(draw(logits, keys))
        for keys in (row_keys(0, range(COUNT), [0]), row_keys(0, range(COUNT), [1]), row_keys(1, range(COUNT), [0]))
    )
    step = np.asarray(draw(logits, jax.vmap(jax.random.fold_in, (0, None))(row_keys(0, range(COUNT), [0]), 1)))
    for other in (second, third, step, np.roll(first, 1)):
        assert chisquare(np.bincount(4 * first + other, minlength=16)).pvalue > LEAST_P


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99])
def test_top_p_keeps_the_fewest_that_have_the_share(share):
    p = np.exp(LOGITS.astype(np.float64))
    p /= p.sum(1, keepdims=True)
    order = np.argsort(-LOGITS, axis=1)
    sorted_p = np.take_along_axis(p, order, 1)
    expected = np.zeros(LOGITS.shape, bool)
    np.put_along_axis(expected, order, np.cumsum(sorted_p, 1) - sorted_p < share, 1)
    np.testing.assert_array_equal(_kept(LOGITS, top_p=share), expected)


def test_the_whole_share_keeps_all_also_what_adds_nothing_to_a_float32():
    logits = np.array([[0.0, -40.0, 3.0, -90.0]], np.float32)
    assert _kept(logits, top_p=1.0).all() and _kept(logits, typical_p=1.0).all()


def test_ties_are_kept_together():
    logits = np.log(np.array([[0.2, 0.3, 0.2, 0.1, 0.2]], np.float32))
    np.testing.assert_array_equal(_kept(logits, top_k=2)[0], [True, True, True, False, True])
    np.testing.assert_array_equal(_kept(logits, top_p=0.4)[0], [True, True, True, False, True])
    np.testing.assert_array_equal(_kept(logits, top_p=0.25)[0], [False, True, False, False, False])


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}, {"epsilon": 0.999}])
def test_the_tightest_cut_leaves_the_likeliest(cut):
    np.testing.assert_array_equal(_kept(LOGITS, **cut), LOGITS.max(1, keepdims=True) == LOGITS)


def test_a_cut_sees_what_the_one_before_it_has_left():
    """The share of top-p is of the tokens that top-k left."""
    both, alone = _kept(LOGITS, top_k=10, top_p=0.8), _kept(LOGITS, top_k=10) & _kept(LOGITS, top_p=0.8)
    assert (both <= alone).all() and (both.sum(1) < alone.sum(1)).any()


@pytest.mark.parametrize("vocab_size", [1, 2, 50, 97])
def test_the_likeliest_is_the_first_of_the_largest(vocab_size):
    logits = np.round(LOGITS[:, :vocab_size])
    np.testing.assert_array_equal(likeliest(jnp.asarray(logits)), logits.argmax(1))


def test_what_a_mask_leaves_and_what_it_removes():
    mask = np.random.default_rng(1).random((200, 97)) < 0.3
    words = np.packbits(np.pad(mask, ((0, 0), (0, 31))), axis=1, bitorder="little").view("<u4")
    kept, bits = constrained(jnp.asarray(LOGITS), jnp.asarray(words))
    np.testing.assert_array_equal(np.isfinite(kept), mask)
    p = np.exp(LOGITS.astype(np.float64))
    np.testing.assert_allclose(bits, -np.log2(np.where(mask, p, 0).sum(1) / p.sum(1)), rtol=1e-4, atol=1e-5)
    _, none = constrained(jnp.asarray(LOGITS), jnp.full((200, 4), 0xFFFFFFFF, jnp.uint32))
    np.testing.assert_allclose(none, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_p": 0.0}, "sampling.top_p = 0.0: must be above 0 and at most 1"),
        ({"typical_p": 1.5}, "sampling.typical_p = 1.5: must be above 0 and at most 1"),
        ({"top_k": 0}, "sampling.top_k = 0: must be at least 1"),
        ({"min_p": 1.0}, "sampling.min_p = 1.0: must be at least 0 and below 1"),
        ({"epsilon": -0.1}, "sampling.epsilon = -0.1: must be at least 0 and below 1"),
        ({"temperature": -1.0}, "sampling.temperature = -1.0: must be at least 0"),
        ({"temperature": 0.0, "top_k": 4}, "sampling.temperature = 0.0: takes the likeliest token, so that top_k"),
        ({"repetition_penalty": 0.0}, "sampling.repetition_penalty = 0.0: must be above zero"),
        ({"min_new_tokens": -1}, "sampling.min_new_tokens = -1: must be at least 0"),
        ({"bias": ((1, 2.0), (1, 3.0))}, "sampling.bias = .*: must name a token once"),
    ],
)
def test_a_value_that_means_nothing_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SamplingConfig(**values)

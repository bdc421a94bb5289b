"""What a decoding writes: greedily the argmax of whole forward passes, and of each row what it would write alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architectures import ARCHITECTURES
from random_configs import drawn_by_numpy

from research.config import GREEDY, AttentionConfig, ConfigError, LogProbs, MlpConfig, ModelConfig, SamplingConfig
from research.generation import DeadEndError, Decoding, StopStrings, decode, padded
from research.generation.choice import transformed
from research.generation.scoring import score
from research.models import language_model

MODEL = ModelConfig(vocab_size=61, width=24, depth=2, attention=AttentionConfig(4, 2, 6), mlp=MlpConfig(40))
LOGITS = jax.jit(language_model.logits, static_argnums=0)
PIECES = [None, None, None, *(bytes([97 + i % 26]) for i in range(58))]
DRAWN = Decoding(9, SamplingConfig(temperature=1.3, top_p=0.95, repetition_penalty=1.2), end_ids=(7,))


def _prompt(model, length=5):
    return np.random.default_rng(0).integers(0, model.vocab_size, (3, length), np.int32)


def _greedy(model, params, prompt_PL, tokens, *args, **inputs):
    written = decode(model, params, Decoding(tokens, GREEDY), prompt_PL, *args, **inputs)
    assert (written.lengths_B == tokens).all() and set(written.ends) == {"length"}
    return written.tokens_BT


def _assert_greedy(model, params, prompt_BL, found, **inputs):
    """Every token is the likeliest after those before it; one pass over the grown sequences says all of them."""
    grown_BL = np.concatenate([prompt_BL, found], axis=1)
    logits = LOGITS(model, params, grown_BL, **inputs)[:, prompt_BL.shape[1] - 1 : -1]
    np.testing.assert_array_equal(found, logits.argmax(-1))


@pytest.fixture(scope="module")
def params():
    return drawn_by_numpy(MODEL)


@pytest.mark.parametrize("pattern", ["attention:mlp", "mamba, attention:mlp"])
@pytest.mark.parametrize("scan_layers", [False, True])
def test_each_token_is_the_likeliest_after_those_before_it(pattern, scan_layers):
    model = replace(MODEL, pattern=pattern, scan_layers=scan_layers, tied_embeddings=True)
    params = drawn_by_numpy(model)
    found = _greedy(model, params, _prompt(model), 9)
    assert found.shape == (3, 9) and found.dtype == jnp.int32
    _assert_greedy(model, params, _prompt(model), found)
    np.testing.assert_array_equal(_greedy(model, params, _prompt(model), 1), found[:, :1])


def test_padded_prompts_are_continued_as_if_alone():
    model = replace(MODEL, max_positions=12)
    params = drawn_by_numpy(model)
    prompts = [row[5 - length :] for row, length in zip(_prompt(model), (5, 3, 1))]
    prompt_PL, mask_PL = padded(prompts)
    together = _greedy(model, params, prompt_PL, 7, mask_PL)
    for row, prompt in enumerate(prompts):
        np.testing.assert_array_equal(together[row], _greedy(model, params, prompt[None], 7)[0])


def test_an_encoder_decoder_answers_its_sources():
    model = replace(MODEL, pattern="attention:mlp -> attention, cross_attention:mlp", source_length=4)
    params = drawn_by_numpy(model)
    sources = _prompt(model, 4), np.arange(4)[None] < np.array([4, 3, 2])[:, None]
    found = _greedy(model, params, _prompt(model, 1), 6, sources=sources)
    _assert_greedy(model, params, _prompt(model, 1), found, sources=sources)
    twice = _greedy(model, params, _prompt(model, 1), 6, sources=sources, samples=2)
    np.testing.assert_array_equal(twice, np.repeat(found, 2, axis=0))
    with pytest.raises(ConfigError, match="sources = None: must be given for an encoder-decoder"):
        decode(model, params, Decoding(6), _prompt(model, 1))


def test_a_rows_text_does_not_depend_on_its_batch(params):
    """Not on the other rows, their number, the padding, or how often the host looks."""
    prompts = [row[5 - length :] for row, length in zip(_prompt(MODEL), (5, 3, 3))]
    together = decode(MODEL, params, DRAWN, *padded(prompts), samples=2, seed=3)
    assert len({row.tobytes() for row in together.tokens_BT}) == 6
    for p, prompt in enumerate(prompts):
        for sample in range(2):
            alone = decode(
                MODEL, params, DRAWN, prompt[None], seed=3, numbers_P=[p], first_sample=sample, steps=1 + sample
            )
            np.testing.assert_array_equal(alone.tokens_BT[0], together.tokens_BT[2 * p + sample])
            assert alone.ends[0] == together.ends[2 * p + sample]
    other = decode(MODEL, params, DRAWN, *padded(prompts), samples=2, seed=4)
    assert (other.tokens_BT != together.tokens_BT).any(axis=1).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_samples_of_a_prompt_are_those_of_the_prompt_read_apart(name):
    model = ARCHITECTURES[name]
    params, prompt, decoding = drawn_by_numpy(model), _prompt(model)[:2], Decoding(6)
    sources = None
    if model.encoder is not None:
        sources = _prompt(model, 8)[:2], np.ones((2, 8), bool)
    once = decode(model, params, decoding, prompt, samples=3, sources=sources)
    apart = decode(
        model, params, decoding, np.repeat(prompt, 3, 0), numbers_P=[0, 0, 0, 1, 1, 1],
        sources=None if sources is None else tuple(np.repeat(a, 3, 0) for a in sources),
    )  # fmt: skip
    np.testing.assert_array_equal(once.tokens_BT[::3], apart.tokens_BT[::3])
    assert (once.tokens_BT[1::3] != once.tokens_BT[::3]).any()


def test_a_row_ends_at_its_end_token_and_the_loop_with_the_last_row(params):
    free = _greedy(MODEL, params, _prompt(MODEL), 12)
    ends = tuple({int(row[i]) for row, i in zip(free, (2, 5, 4))})
    found = decode(MODEL, params, Decoding(12, GREEDY, ends), _prompt(MODEL))
    for row, length, token in zip(found.tokens_BT, found.lengths_B, free):
        assert length == 1 + min(list(token).index(end) for end in ends if end in token)
        np.testing.assert_array_equal(row[:length], token[:length])
        assert not row[length:].any()
    assert found.ends == ("end",) * 3
    least = Decoding(12, replace(GREEDY, min_new_tokens=12), ends)
    assert decode(MODEL, params, least, _prompt(MODEL)).ends == ("length",) * 3


@pytest.mark.parametrize("steps", [None, 1, 5])
def test_a_stop_string_ends_a_row_where_it_is_complete(params, steps):
    """Across tokens; what the program wrote after it, before the host looked, is not given out."""
    free = _greedy(MODEL, params, _prompt(MODEL), 12)
    texts = [b"".join(PIECES[token] or b"" for token in row) for row in free]
    stop = texts[1][3:6]
    found = decode(
        MODEL, params, Decoding(12, GREEDY), _prompt(MODEL), stop_strings=StopStrings(PIECES, [stop]), steps=steps
    )
    assert found.ends[1] == "stop"
    for row, text in enumerate(texts):
        if found.ends[row] == "stop":
            assert found.stops[row].start == text.index(stop)
            written = b"".join(PIECES[token] or b"" for token in found.row(row))
            assert written.endswith(stop) and written.index(stop) == len(written) - len(stop)
            assert not found.tokens_BT[row, found.lengths_B[row] :].any()
        else:
            assert stop not in text


class Odd:
    """Odd ids alone, and in a row's third token the end token 7 alone."""

    def __init__(self, rows):
        self.read = [[] for _ in range(rows)]

    def masks(self):
        bits = np.zeros((len(self.read), 64), bool)
        bits[:, 1:61:2] = True
        for b, read in enumerate(self.read):
            if len(read) == 2 + b:
                bits[b] = np.arange(64) == 7
        return np.packbits(bits, axis=1, bitorder="little").view("<u4")

    def advance(self, tokens_B, running_B):
        for b in np.flatnonzero(running_B):
            self.read[b].append(int(tokens_B[b]))


def test_a_constraint_is_asked_before_each_token_and_its_price_is_said(params):
    constraint, sampling = Odd(3), SamplingConfig(bias=((7, -20.0),), temperature=0.7)
    found = decode(MODEL, params, Decoding(9, sampling, (7,)), _prompt(MODEL), constraint=constraint)
    assert [list(found.row(b)) for b in range(3)] == constraint.read
    assert list(found.lengths_B) == [3, 4, 5] and found.ends == ("end",) * 3
    assert (found.tokens_BT[found.tokens_BT > 0] % 2 == 1).all()
    grown = np.concatenate([_prompt(MODEL), found.tokens_BT], axis=1)
    logits = LOGITS(MODEL, params, grown)[:, 4:-1]
    biased = transformed(sampling, logits.reshape(27, -1), None, (), 0).reshape(logits.shape)
    p = np.asarray(jax.nn.softmax(biased, axis=-1), np.float64)
    for b in range(3):
        bits = -np.log2(p[b, : 2 + b, 1::2].sum(-1))
        np.testing.assert_allclose(found.removed_bits_BT[b, : 2 + b], bits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.removed_bits_BT[b, 2 + b], -np.log2(p[b, 2 + b, 7]), rtol=1e-4)
    with pytest.raises(DeadEndError, match="row 0: every token that the constraint leaves is excluded"):
        decode(MODEL, params, Decoding(9, replace(sampling, banned=(7,)), (7,)), _prompt(MODEL), constraint=Odd(3))
    with pytest.raises(ConfigError, match="steps = 4: must be 1: a constraint is asked before each"):
        decode(MODEL, params, Decoding(9), _prompt(MODEL), constraint=Odd(3), steps=4)


@pytest.mark.parametrize("of", ["model", "sampled"])
def test_log_probabilities_are_those_of_the_named_logits(params, of):
    sampling = SamplingConfig(temperature=0.7, top_k=9)
    found = decode(MODEL, params, Decoding(8, sampling, logprobs=LogProbs(of, 3)), _prompt(MODEL))
    grown = np.concatenate([_prompt(MODEL), found.tokens_BT], axis=1)
    scored = score(MODEL, params, grown, best=3)
    if of == "model":
        np.testing.assert_allclose(found.logprobs_BT, scored.logprobs_BL[:, 4:], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found.best_BTN, scored.best_BLN[:, 4:])
        np.testing.assert_allclose(found.best_logprobs_BTN, scored.best_logprobs_BLN[:, 4:], rtol=1e-4, atol=1e-5)
        return
    logits = np.asarray(LOGITS(MODEL, params, grown)[:, 4:-1], np.float64) / 0.7
    logits[logits < np.sort(logits, -1)[..., -9, None]] = -np.inf
    expected = np.asarray(jax.nn.log_softmax(logits, axis=-1))
    written = np.take_along_axis(expected, found.tokens_BT[..., None], -1)[..., 0]
    np.testing.assert_allclose(found.logprobs_BT, written, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.best_logprobs_BTN, -np.sort(-expected, -1)[..., :3], rtol=1e-4, atol=1e-5)


def test_a_given_text_has_the_score_of_its_tokens_after_the_first(params):
    texts = [row[5 - length :] for row, length in zip(_prompt(MODEL), (5, 4, 2))]
    together = score(MODEL, params, *padded(texts))
    for row, text in enumerate(texts):
        logits = np.asarray(LOGITS(MODEL, params, text[None])[0, :-1], np.float64)
        expected = (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[np.arange(len(text) - 1), text[1:]]
        np.testing.assert_allclose(together.logprobs_BL[row, 5 - len(text) :], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together.summed_B[row], expected.sum(), rtol=1e-4)
        assert not together.logprobs_BL[row, : 5 - len(text)].any()


def test_what_cannot_be_decoded_is_refused_in_words():
    model = replace(MODEL, max_positions=8)
    with pytest.raises(ConfigError, match="model.max_positions = 8: must be at least the 9 tokens"):
        decode(model, None, Decoding(4), _prompt(model))
    with pytest.raises(ConfigError, match="tokens = 0: must be at least 1"):
        Decoding(0)
    with pytest.raises(ConfigError, match="prompt = '': must hold a token"):
        decode(MODEL, None, Decoding(4), *padded([[], [3]]))
    with pytest.raises(ConfigError, match="sampling.banned = 61: must be ids of the vocabulary, from 0 to 60"):
        decode(MODEL, None, Decoding(4, SamplingConfig(banned=(61,))), _prompt(MODEL))
    with pytest.raises(ConfigError, match="samples = 0: must be at least 1"):
        decode(MODEL, None, Decoding(4), _prompt(MODEL), samples=0)
    with pytest.raises(ConfigError, match="logprobs.best = 62: must be at most the 61 ids"):
        decode(MODEL, None, Decoding(4, logprobs=LogProbs(best=62)), _prompt(MODEL))
    with pytest.raises(ConfigError, match="stop = '': must not be empty"):
        StopStrings(PIECES, [""])

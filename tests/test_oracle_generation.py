"""Choosing a token and decoding are what Hugging Face's `generate` does: its processors, its order, its greedy text."""

import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_configs import perturbed

from research.config import GREEDY, AttentionConfig, Mamba2Config, MlpConfig, ModelConfig, SamplingConfig
from research.generation import BeamSearch, Decoding, beam_search, decode, padded
from research.generation.choice import distribution, transformed
from research.generation.vocabulary import hugging_face_vocabulary

pytestmark = pytest.mark.oracles
torch = pytest.importorskip("torch", reason="needs the oracles extra")
transformers = pytest.importorskip("transformers", reason="needs the oracles extra")
from oracle_tools import as_stored, float64_everywhere, load, neox_in_memory  # noqa: E402

ROWS, VOCAB, NEW = 200, 97, 12
END = 5
LOGITS = 3 * np.random.default_rng(0).normal(size=(ROWS, VOCAB))
WRITTEN = np.random.default_rng(1).integers(0, VOCAB, (ROWS, 8))
LLAMA = ModelConfig(vocab_size=VOCAB, width=32, depth=2, attention=AttentionConfig(4, 2, 8), mlp=MlpConfig(48))
FAMILIES = {
    "llama": LLAMA,
    "qwen3": replace(LLAMA, attention=AttentionConfig(4, 2, 12, qk_norm="head", rope_theta=1e6)),
    "gpt2": replace(
        LLAMA,
        attention=AttentionConfig(4, 4, 8, positions="none", biases="all"),
        mlp=MlpConfig(48, "gelu", biases=True),
        norm="layer",
        max_positions=32,
        tied_embeddings=True,
    ),
    "gpt_neox": replace(
        LLAMA,
        attention=AttentionConfig(2, 2, 16, rope_fraction=0.25, biases="all"),
        mlp=MlpConfig(48, "gelu_exact", biases=True),
        norm="layer",
        parallel_mixers=True,
    ),
    "mamba": replace(LLAMA, pattern="mamba"),
    "mamba2": replace(LLAMA, pattern="mamba2", mamba2=Mamba2Config(16, head_dim=16)),
}


def _theirs(**choice):
    """What `generate` makes of the logits by these settings: every processor it would run, in its order."""
    config = transformers.GenerationConfig(do_sample=True, eos_token_id=END, **{"top_k": 0, **choice})
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                 num_attention_heads=1)
    )  # fmt: skip
    config._eos_token_tensor = torch.tensor([END])
    written = torch.tensor(WRITTEN)
    processors = model._get_logits_processor(config, input_ids_seq_length=6, device="cpu")
    return processors(written, torch.tensor(LOGITS)).numpy()


def _ours(sampling):
    present = np.zeros((ROWS, VOCAB), bool)
    np.put_along_axis(present, WRITTEN, True, axis=1)
    with jax.enable_x64(True):
        bent = transformed(sampling, jnp.asarray(LOGITS), jnp.asarray(present), (END,), WRITTEN.shape[1] - 6)
        return np.asarray(distribution(sampling, bent))


@pytest.mark.parametrize(
    "cuts",
    [
        *({"top_p": share} for share in (0.3, 0.9, 0.99)),
        *({"min_p": share} for share in (0.01, 0.3)),
        *({"typical_p": share} for share in (0.2, 0.9)),
        *({"epsilon": least} for least in (3e-4, 0.05)),
        *({"top_k": k} for k in (1, 5, 50)),
        {"temperature": 0.7, "top_k": 30, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9, "epsilon": 0.01},
    ],
    ids=str,
)
def test_the_kept_sets_are_those_of_hugging_face(cuts):
    theirs = _theirs(**{"epsilon_cutoff" if name == "epsilon" else name: value for name, value in cuts.items()})
    ours = _ours(SamplingConfig(**cuts))
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    assert 0 < np.isfinite(ours).sum() < ours.size
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_what_bends_the_logits_is_that_of_hugging_face_in_its_order():
    """The bias is added before the penalty, which then counts it; bans and the minimum length come last."""
    sampling = SamplingConfig(
        bias=((3, 2.5), (8, -4.0)), repetition_penalty=1.7, banned=(4, 11), min_new_tokens=3, temperature=0.6
    )
    theirs = _theirs(
        sequence_bias=[[[3], 2.5], [[8], -4.0]],
        repetition_penalty=1.7,
        bad_words_ids=[[4], [11]],
        min_new_tokens=3,
        temperature=0.6,
    )
    np.testing.assert_allclose(_ours(sampling), theirs, rtol=1e-12)
    assert np.isinf(theirs[:, [4, 11, END]]).all() and np.isfinite(theirs).sum() == ROWS * (VOCAB - 3)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_is_that_of_generate(family):
    """Token for token, in float64, of prompts of unequal length, with a penalty and an end token."""
    model = FAMILIES[family]
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, VOCAB, length) for length in (7, 4, 6)]
    if family.startswith("mamba"):  # there padding is read as any token is
        prompts = [rng.integers(0, VOCAB, 7) for _ in range(3)]
    prompt_PL, mask_PL = padded(prompts)
    double = jax.tree.map(partial(np.asarray, dtype=np.float64), perturbed(model))
    with float64_everywhere():
        in_memory = neox_in_memory if family == "gpt_neox" else as_stored
        theirs = load(family, model, double, in_memory=in_memory)
        theirs.generation_config.eos_token_id = None
        mask = torch.tensor(np.ones_like(prompt_PL) if mask_PL is None else mask_PL.astype(np.int64))
        read = torch.tensor(prompt_PL.astype(np.int64))
        run = partial(theirs.generate, read, attention_mask=mask, max_new_tokens=NEW, pad_token_id=0, do_sample=False)
        with torch.inference_mode():
            free, penalised = (
                run(**choice)[:, prompt_PL.shape[1] :].numpy() for choice in ({}, {"repetition_penalty": 1.3})
            )
            end = int(free[0, 4])
            ended = run(eos_token_id=end)[:, prompt_PL.shape[1] :].numpy()
        exact = replace(model, compute_dtype="float64")
        ours = partial(decode, exact, double, prompt_PL=prompt_PL, mask_PL=mask_PL)
        np.testing.assert_array_equal(ours(decoding=Decoding(NEW, GREEDY)).tokens_BT, free)
        found = ours(decoding=Decoding(NEW, replace(GREEDY, repetition_penalty=1.3))).tokens_BT
        np.testing.assert_array_equal(found, penalised)
        assert (found != free).any()
        stopped = ours(decoding=Decoding(NEW, GREEDY, (end,)))
        np.testing.assert_array_equal(stopped.tokens_BT[:, : ended.shape[1]], ended)
        assert stopped.ends[0] == "end"


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gpt_neox"])
@pytest.mark.parametrize(
    ("length_penalty", "early_stopping"), [(1.0, False), (1.0, True), (2.0, "never"), (-1.0, False)], ids=str
)
def test_beams_are_those_of_generate(family, length_penalty, early_stopping):
    """All four of each prompt, best first, and their scores, which Hugging Face sums in float32."""
    model = FAMILIES[family]
    rng = np.random.default_rng(3)
    prompt_PL, mask_PL = padded([rng.integers(0, VOCAB, length) for length in (6, 3)])
    double = jax.tree.map(partial(np.asarray, dtype=np.float64), perturbed(model))
    ends = (2, 7, 30, 31, 55, 80)  # of 97 ids, so that some beams end early
    with float64_everywhere():
        in_memory = neox_in_memory if family == "gpt_neox" else as_stored
        theirs = load(family, model, double, in_memory=in_memory)
        with torch.inference_mode():
            found = theirs.generate(
                torch.tensor(prompt_PL.astype(np.int64)),
                attention_mask=torch.tensor(mask_PL.astype(np.int64)),
                max_new_tokens=NEW, num_beams=4, num_return_sequences=4, do_sample=False, eos_token_id=list(ends),
                pad_token_id=0, length_penalty=length_penalty, early_stopping=early_stopping, output_scores=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        search = BeamSearch(NEW, 4, ends, length_penalty, early_stopping)
        ours = beam_search(replace(model, compute_dtype="float64"), double, search, prompt_PL, mask_PL)
    written = found.sequences[:, prompt_PL.shape[1] :].numpy().reshape(2, 4, -1)
    steps = written.shape[2]
    fill = np.where(np.arange(steps) < ours.lengths_PK[..., None], 0, ends[0])  # what theirs has in place of our zeros
    np.testing.assert_array_equal(ours.tokens_PKT[:, :, :steps] + fill, written)
    assert not ours.tokens_PKT[:, :, steps:].any()
    np.testing.assert_allclose(ours.scores_PK.ravel(), found.sequences_scores.numpy(), rtol=1e-5)
    if family == "llama" and length_penalty <= 1:  # others end at their length, or soon
        assert len(set(ours.lengths_PK.ravel().tolist())) > 1


@pytest.mark.parametrize("kind", ["bytes", "space marks"])
def test_a_tokenizer_of_a_folder_writes_what_it_read(kind, tmp_path):
    """Byte-level pieces as GPT-2 has them, and Llama's with U+2581 and byte fallback; special tokens write nothing."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the pretrained extra")
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    lines = ["the cat sat on the mat", "a grin without a cat", "naïve – ¿qué?"] * 20
    special = ["<s>", "</s>"]
    if kind == "bytes":
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        made.train_from_iterator(lines, trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False))  # fmt: skip
    else:
        vocabulary = {piece: i for i, piece in enumerate([*special, *(f"<0x{byte:02X}>" for byte in range(256))])}
        vocabulary |= {
            piece: len(vocabulary) + i for i, piece in enumerate(["▁", "t", "h", "th", "▁th", "c", "a", "▁c"])
        }
        merges = [("t", "h"), ("▁", "th"), ("▁", "c")]
        made = tokenizers.Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        made.add_special_tokens(special)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", made.token_to_id("<s>"))]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": made.token_to_id("</s>")}))
    found = hugging_face_vocabulary(tmp_path)
    assert found.begin_ids == (made.token_to_id("<s>"),) and found.end_ids == (made.token_to_id("</s>"),)
    for text in ("the cat", " that – naïve 日本 🙂", ""):
        ids = made.encode(text).ids
        assert found.prompt(text) == ids and found.decode(ids) == text == made.decode(ids)

"""Greedy decoding against Hugging Face's `generate` with the same Llama and weights, alternating in one run.

    make benchmark                       (every benchmark), or
    .venv-oracles/bin/python tests/benchmarks/decoding.py

Model of train_step.py (width 256, 6 layers, 4 heads, SwiGLU of 688, float32) at vocabulary 8,192; prompts of 32 tokens,
128 new ones, at batch 1 and 16, on all cores. Each side has a process of its own and they take turns. Printed: median
milliseconds a token of a sequence, torch / ours (above 1: ours is faster; to reach: 2.5 at batch 1, 1.0 at batch 16),
and the share of tokens on which both agree: rounding may part two runs at a near tie, and from there on they differ.
"""

import sys

import jax
import numpy as np
import torch
from train_step import DEPTH, HEADS, HIDDEN, WIDTH, answer, describe_machine, take_turns, use_all_cores
from transformers import LlamaConfig, LlamaForCausalLM

from research.config import AttentionConfig, MlpConfig, ModelConfig
from research.generation.greedy import greedy
from research.models import language_model
from research.pretrained import settings_of, to_hugging_face
from research.training.runtime import configure

VOCAB, PROMPT, NEW = 8192, 32, 128
MODEL = ModelConfig(
    vocab_size=VOCAB,
    width=WIDTH,
    depth=DEPTH,
    attention=AttentionConfig(HEADS, HEADS, WIDTH // HEADS),
    mlp=MlpConfig(HIDDEN),
)


def prompts(batch: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, (batch, PROMPT), np.int32)


def ours(batch: int):
    params, prompt = language_model.init(MODEL, jax.random.key(0)), prompts(batch)
    return lambda: np.asarray(greedy(MODEL, params, prompt, NEW))


def theirs(batch: int):
    settings = settings_of("llama", MODEL) | {"max_position_embeddings": PROMPT + NEW}
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    params = to_hugging_face(MODEL, language_model.init(MODEL, jax.random.key(0)), "llama")
    model.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    model.generation_config.eos_token_id = None  # as ours: every sequence gets all its tokens
    prompt = torch.tensor(prompts(batch), dtype=torch.long)
    mask = torch.ones_like(prompt)

    def run() -> np.ndarray:
        with torch.inference_mode():
            grown = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0)
        return grown[:, PROMPT:].numpy()

    return run


def serve(side: str, batch: int) -> None:
    if side == "ours":
        configure()
        run = ours(batch)
    else:
        use_all_cores()
        run = theirs(batch)
    tokens = run()
    assert tokens.shape == (batch, NEW)
    answer(run, " ".join(map(str, tokens.ravel())))


def main() -> None:
    describe_machine()
    for batch in (1, 16):
        measured = take_turns(__file__, batch)
        (our_tokens, our_seconds), (their_tokens, their_seconds) = measured["ours"], measured["torch"]
        same = np.mean(np.array(our_tokens.split()) == np.array(their_tokens.split()))
        print(
            f"batch {batch:2d}: ours {1e3 * our_seconds / NEW:.2f} ms a token, torch {1e3 * their_seconds / NEW:.2f}, "
            f"ratio {their_seconds / our_seconds:.2f}; {100 * same:.1f} % of tokens the same"
        )


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()

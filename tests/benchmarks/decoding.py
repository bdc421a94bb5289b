"""Decoding against Hugging Face's `generate` with the same Llama and weights, alternating in one run.

    make benchmark                       (every benchmark), or
    .venv-oracles/bin/python tests/benchmarks/decoding.py

Model of train_step.py (width 256, 6 layers, 4 heads, SwiGLU of 688, float32) at vocabulary 8,192; prompts of 32 tokens,
128 new ones, at batch 1 and 16, on all cores; greedy, and sampled at temperature 0.8 from the 40 likeliest and of those
from 0.95 of the probability. Each side has a process of its own and they take turns. Printed: median milliseconds a
token of a sequence, torch / ours (above 1: ours is faster; to reach: 3.5 at batch 1, 1.5 at batch 16), and of greedy
decoding the share of tokens on which both agree: rounding may part two runs at a near tie, and from there on they
differ. Last, ours alone: 64 samples of one prompt of 1,024 tokens, 16 new ones each, against 64 prompts that are read
apart (to reach: 3).
"""

import sys
from collections.abc import Callable

import jax
import numpy as np
import torch
import turns
from train_step import DEPTH, HEADS, HIDDEN, ROUNDS, WIDTH, describe_machine, use_all_cores
from transformers import LlamaConfig, LlamaForCausalLM

from research.config import GREEDY, AttentionConfig, MlpConfig, ModelConfig, SamplingConfig
from research.generation import Decoding, decode
from research.models import language_model
from research.pretrained import settings_of, to_hugging_face
from research.training.runtime import configure

VOCAB, PROMPT, NEW = 8192, 32, 128
SAMPLES, LONG_PROMPT, FEW = 64, 1024, 16
SAMPLED = SamplingConfig(temperature=0.8, top_k=40, top_p=0.95)
MODEL = ModelConfig(
    vocab_size=VOCAB,
    width=WIDTH,
    depth=DEPTH,
    attention=AttentionConfig(HEADS, HEADS, WIDTH // HEADS),
    mlp=MlpConfig(HIDDEN),
)
Runs = dict[str, Callable[[], np.ndarray]]


def prompts(batch: int, length: int = PROMPT) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCAB, (batch, length), np.int32)


def ours(batch: int) -> Runs:
    params, prompt = language_model.init(MODEL, jax.random.key(0)), prompts(batch)

    def run(sampling: SamplingConfig) -> np.ndarray:
        return decode(MODEL, params, Decoding(NEW, sampling), prompt).tokens_BT

    return {"greedy": lambda: run(GREEDY), "sampled": lambda: run(SAMPLED)}


def of_one_prompt() -> Runs:
    params, prompt = language_model.init(MODEL, jax.random.key(0)), prompts(1, LONG_PROMPT)
    decoding, repeated = Decoding(FEW, SAMPLED), np.repeat(prompt, SAMPLES, axis=0)
    return {
        "samples": lambda: decode(MODEL, params, decoding, prompt, samples=SAMPLES).tokens_BT,
        "prompts": lambda: decode(MODEL, params, decoding, repeated).tokens_BT,
    }


def theirs(batch: int) -> Runs:
    settings = settings_of("llama", MODEL) | {"max_position_embeddings": PROMPT + NEW}
    model = LlamaForCausalLM(LlamaConfig(**settings)).eval()
    params = to_hugging_face(MODEL, language_model.init(MODEL, jax.random.key(0)), "llama")
    model.load_state_dict({name: torch.tensor(value) for name, value in params.items()})
    model.generation_config.eos_token_id = None  # as ours: every sequence gets all its tokens
    prompt = torch.tensor(prompts(batch), dtype=torch.long)
    mask = torch.ones_like(prompt)

    def run(**choice: float) -> np.ndarray:
        with torch.inference_mode():
            grown = model.generate(prompt, attention_mask=mask, max_new_tokens=NEW, pad_token_id=0, **choice)
        return grown[:, PROMPT:].numpy()

    sampled = {name: getattr(SAMPLED, name) for name in ("temperature", "top_k", "top_p")}
    return {"greedy": lambda: run(do_sample=False), "sampled": lambda: run(do_sample=True, **sampled)}


def serve(side: str, batch: int) -> None:
    if side == "torch":
        use_all_cores()
        runs = theirs(batch)
    else:
        configure()
        runs = ours(batch) if side == "ours" else of_one_prompt()
    turns.answer(runs, lambda: {name: run().tolist() for name, run in runs.items()})


def measure(sides: tuple[str, ...], batch: int) -> dict[str, turns.Side]:
    commands = {side: [sys.executable, __file__, side, str(batch)] for side in sides}
    measured = turns.take_turns(commands, ROUNDS)
    for side, outcome in measured.items():
        if outcome.error is not None:
            raise ChildProcessError(f"{side}: {outcome.error}")
    return measured


def main() -> None:
    describe_machine()
    for batch in (1, 16):
        measured = measure(("ours", "torch"), batch)
        for run in ("greedy", "sampled"):
            our_ms, their_ms = (1e3 * measured[side].median(run) / NEW for side in ("ours", "torch"))
            tokens, others = (np.array(measured[side].first[run]) for side in ("ours", "torch"))
            assert tokens.shape == others.shape == (batch, NEW)
            agreed = f"; {100 * np.mean(tokens == others):.1f} % of tokens the same" if run == "greedy" else ""
            print(
                f"batch {batch:2d}, {run}: ours {our_ms:.2f} ms a token, torch {their_ms:.2f}, "
                f"ratio {their_ms / our_ms:.2f}{agreed}"
            )
    one = measure(("one prompt",), 1)["one prompt"]
    samples, apart = one.median("samples"), one.median("prompts")
    print(f"{SAMPLES} samples of a prompt: {samples:.2f} s; as prompts: {apart:.2f} s, ratio {apart / samples:.2f}")


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()

"""Train step against the Hugging Face Llama of the same size in torch eager, alternating in one run.

    make benchmark                       (every benchmark), or
    .venv-oracles/bin/python tests/benchmarks/train_step.py

Model: width 256, 6 layers, 4 heads, SwiGLU of 688, float32; batch 8 x 256; AdamW and all cores of the machine on both
sides. Each side has a process of its own, set up as its users have it (ours by runtime.configure, whose way with
memory would speed torch up too), and they take turns. Printed: median seconds, our rate, and torch / ours (above 1:
ours is faster).
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from research.config import (
    AdamWConfig,
    AttentionConfig,
    DataConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)
from research.plan import run_cost
from research.sharding import make_mesh
from research.training.objective import language_modelling
from research.training.runtime import configure
from research.training.step import make_program

sys.path.insert(0, str(Path(__file__).parents[1]))
import turns

BATCH, LENGTH, WIDTH, DEPTH, HEADS, HIDDEN = 8, 256, 256, 6, 4, 688
ROUNDS, STEPS_PER_ROUND = 7, 2


def ours(vocab_size: int):
    config = RunConfig(
        model=ModelConfig(
            vocab_size=vocab_size,
            width=WIDTH,
            depth=DEPTH,
            attention=AttentionConfig(HEADS, HEADS, WIDTH // HEADS),
            mlp=MlpConfig(HIDDEN),
        ),
        data=DataConfig(vocab_size=vocab_size, tokenizer="sentencepiece"),
        optimizer=AdamWConfig(learning_rate=1e-3, schedule="constant", clip_norm=None),
        training=TrainingConfig(steps=1, batch_size=BATCH, sequence_length=LENGTH),
    )
    program = make_program(config, make_mesh(config.mesh), language_modelling(config))
    state = program.init()
    stream = np.random.default_rng(0).integers(0, vocab_size, (BATCH, LENGTH + 1)).astype(np.int32)
    batch = {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weights": np.ones((BATCH, LENGTH), np.float32)}

    def step() -> None:
        nonlocal state
        state, metrics = program.train(state, batch, program.numbers)
        jax.block_until_ready(metrics)

    return step, run_cost(config).flops_per_step


def theirs(vocab_size: int):
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=LENGTH,
        use_cache=False,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.randint(0, vocab_size, (BATCH, LENGTH))

    def step() -> None:
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()

    return step


def answer(run: Callable[[], None], first: object) -> None:
    """One side's process, which runs one thing: `first` is what it says of it."""
    turns.answer({"run": run}, lambda: first, STEPS_PER_ROUND)


def take_turns(script: str, argument: object) -> dict[str, tuple[Any, float]]:
    """What each side said first and its median seconds a run, from `script SIDE argument` that calls `answer`."""
    commands = {side: [sys.executable, script, side, str(argument)] for side in ("ours", "torch")}
    sides = turns.take_turns(commands, ROUNDS)
    for name, side in sides.items():
        if side.error is not None:
            raise ChildProcessError(f"{name}: {side.error}")
    return {name: (side.first, side.median("run")) for name, side in sides.items()}


def use_all_cores() -> None:
    """Of torch, in a process of its own."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))


def serve(side: str, vocab_size: int) -> None:
    if side == "ours":
        configure()
        step, flops = ours(vocab_size)
    else:
        use_all_cores()
        step, flops = theirs(vocab_size), 0
    answer(step, flops)


def compare(vocab_size: int) -> None:
    measured = take_turns(__file__, vocab_size)
    (flops, our_seconds), (_, their_seconds) = measured["ours"], measured["torch"]
    print(
        f"vocabulary {vocab_size:6d}: ours {our_seconds:.3f} s ({flops / our_seconds / 1e9:.0f} GFLOP/s), "
        f"torch {their_seconds:.3f} s, ratio {their_seconds / our_seconds:.2f}"
    )


def describe_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores, jax {jax.__version__}, torch {torch.__version__}; load average {os.getloadavg()[0]:.2f}")


def main() -> None:
    describe_machine()
    for vocab_size in (8192, 32000):
        compare(vocab_size)


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(sys.argv[1], int(sys.argv[2]))
    else:
        main()

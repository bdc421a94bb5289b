"""Train step against the Hugging Face Llama of the same size in torch eager, alternating in one process.

    make benchmark                       (every benchmark), or
    .venv-oracles/bin/python tests/benchmarks/train_step.py

Model: width 256, 6 layers, 4 heads, SwiGLU of 688, float32; batch 8 x 256; AdamW and all cores of the
machine on both sides. Printed: median seconds of each, and torch / ours (above 1: ours is faster).
"""

import os
import statistics
import sys
import time

import jax
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from research.config import (
    AttentionConfig,
    DataConfig,
    MlpConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
)
from research.cost import run_cost
from research.sharding import make_mesh
from research.training.runtime import configure
from research.training.step import make_program

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
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule="constant", clip_norm=None),
        training=TrainingConfig(steps=1, batch_size=BATCH, sequence_length=LENGTH),
    )
    program = make_program(config, make_mesh(config.mesh))
    state = program.init()
    stream = np.random.default_rng(0).integers(0, vocab_size, (BATCH, LENGTH + 1)).astype(np.int32)
    batch = {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weights": np.ones((BATCH, LENGTH), np.float32)}

    def step() -> None:
        nonlocal state
        state, metrics = program.train(state, batch)
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


def main() -> None:
    configure()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    print(f"{cores} cores, jax {jax.__version__}, torch {torch.__version__}; load average {os.getloadavg()[0]:.2f}")
    for vocab_size in [int(argument) for argument in sys.argv[1:]] or [8192, 32000]:
        our_step, flops = ours(vocab_size)
        their_step = theirs(vocab_size)
        seconds = {"ours": [], "torch": []}
        for round_number in range(ROUNDS + 1):
            for name, step in (("ours", our_step), ("torch", their_step)):
                began = time.perf_counter()
                for _ in range(STEPS_PER_ROUND):
                    step()
                if round_number > 0:  # the first warms up: compilation here, memory pools there
                    seconds[name].append((time.perf_counter() - began) / STEPS_PER_ROUND)
        our_seconds, their_seconds = (statistics.median(seconds[name]) for name in ("ours", "torch"))
        print(
            f"vocabulary {vocab_size:6d}: ours {our_seconds:.3f} s ({flops / our_seconds / 1e9:.0f} GFLOP/s), "
            f"torch {their_seconds:.3f} s, ratio {their_seconds / our_seconds:.2f}"
        )


if __name__ == "__main__":
    main()

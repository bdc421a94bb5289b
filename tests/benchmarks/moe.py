"""A mixture-of-experts block on this machine: its algorithms, Mixtral's block in torch, and a dense mlp.

    .venv-oracles/bin/python tests/benchmarks/moe.py

Width 256, 8 experts of 688 channels, 2 active, batch 8 x 256, float32; gradients for every parameter and the input, on
all cores. Printed:

- every algorithm of models/experts/dispatch.py, by turns in one process, with the dense mlp of 1,376 channels, whose
FLOPs
  are those of the two active experts: median milliseconds, times the mlp's (to reach: at most 1.3), temporary memory;
- the fastest that drops no choice against the same block of Hugging Face in torch eager, each in a process of its own,
  by turns (to reach: at least 0.95).

What was tried to bring `ragged` down to 1.3 of the mlp, on two cores, as multiples of the mlp: jax.lax.ragged_dot,
which XLA's CPU compiler turns into masked products, 10.8; a loop over blocks of rows for each of the three products,
1.9; one loop for all three and one for their gradients, 1.54, which blocks of 64 or 256 rows, gate and up side by side,
and a loop over groups around the one over blocks (kept) bring to 1.45. Blocks of 128 rows end past their group's end, a
tenth more rows; the rest is elementwise work that XLA runs on one core inside a loop. `capacity 1.0` comes to 1.3, and
drops choices.
"""

import statistics
import sys
import time
from dataclasses import replace

import jax
import torch
from mamba import block_step
from train_step import answer, describe_machine, take_turns, use_all_cores
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from research.config import MlpConfig, ModelConfig, MoeConfig
from research.models.mixers import CHANNEL_MIXERS
from research.training.runtime import configure

WIDTH, BATCH, LENGTH, ROUNDS = 256, 8, 256, 9
MOE = MoeConfig(experts=8, active=2, hidden=688)
CHOICES = {  # row -> how it differs; "1.25" and "1.0" are capacity factors, and drop choices
    "dense": {"algorithm": "dense"},
    "ragged": {"algorithm": "ragged"},
    "capacity, dropless": {"algorithm": "capacity"},
    "capacity 1.25": {"algorithm": "capacity", "capacity_factor": 1.25},
    "capacity 1.0": {"algorithm": "capacity", "capacity_factor": 1.0},
}


def model(**fields) -> ModelConfig:
    return ModelConfig(width=WIDTH, depth=1, pattern="attention:moe", moe=replace(MOE, **fields))


def mlp() -> ModelConfig:
    return ModelConfig(width=WIDTH, depth=1, pattern="attention:mlp", mlp=MlpConfig(MOE.active * MOE.hidden))


def step_of(config: ModelConfig):
    return block_step(CHANNEL_MIXERS[config.pattern.split(":")[1]].module(config, 0), BATCH, LENGTH)


def their_step():
    config = MixtralConfig(
        hidden_size=WIDTH, intermediate_size=MOE.hidden, num_local_experts=MOE.experts, num_experts_per_tok=MOE.active
    )
    block = MixtralSparseMoeBlock(config)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=WIDTH**-0.5)
    x = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)

    def step() -> None:
        block.zero_grad()
        out = block(x)
        (out[0] if isinstance(out, tuple) else out).sum().backward()

    return step


def own_algorithms() -> str:
    """Prints the table; the fastest row that drops no choice."""
    programs = {"mlp": step_of(mlp())} | {row: step_of(model(**fields)) for row, fields in CHOICES.items()}
    seconds = {row: [] for row in programs}
    for turn in range(ROUNDS + 1):
        for row, (program, arguments) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if turn:  # the first finds cold memory
                seconds[row].append(time.perf_counter() - began)
    taken = {row: statistics.median(values) for row, values in seconds.items()}
    for row, (program, _) in programs.items():
        held = program.memory_analysis().temp_size_in_bytes / 2**20
        print(f"  {row:20s} {taken[row] * 1e3:7.1f} ms  {taken[row] / taken['mlp']:5.2f} x the mlp  {held:7.1f} MiB")
    return min((row for row, fields in CHOICES.items() if "capacity_factor" not in fields), key=taken.get)


def main() -> None:
    describe_machine()
    configure()
    row = own_algorithms()
    (_, our_seconds), (_, their_seconds) = take_turns(__file__, row).values()
    ratio = their_seconds / our_seconds
    print(f"{row}: {our_seconds * 1e3:.1f} ms, torch {their_seconds * 1e3:.1f} ms, ratio {ratio:.2f}")


def serve(side: str, row: str) -> None:
    if side == "ours":
        configure()
        program, arguments = step_of(model(**CHOICES[row]))
        answer(lambda: jax.block_until_ready(program(*arguments)), "")
    else:
        use_all_cores()
        answer(their_step(), "")


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(*sys.argv[1:])
    else:
        main()

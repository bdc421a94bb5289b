"""The algorithms that a section offers, against each other on this backend: what `algorithm = "auto"` is chosen from.

    python tests/benchmarks/algorithms.py [--width 256] [--length 256] [--batch 4] [--dtype float32] [--rounds 5]

One layer of the mixer under an embedding and a head of 259 ids; a step is the gradient of the mean loss. All algorithms
of all sections take turns in every round. Printed for each: the median milliseconds, times the fastest of its section,
temporary memory, and how far its loss is from the first row's, relative; `auto` marks what the table in
research/models/algorithms.py chooses here.
"""

import argparse
import statistics
import time
from dataclasses import replace

import jax
import jax.numpy as jnp

from research.config import AttentionConfig, ModelConfig, MoeConfig, RunConfig, TrainingConfig
from research.models import language_model
from research.models.algorithms import KERNELS, algorithm
from research.sharding import platform
from research.training.objective import language_modelling
from research.training.runtime import configure
from research.training.step import gradients

HERE = [name for name, backends in KERNELS.items() if platform() in backends]
CASES = {  # section -> (pattern, what each row sets)
    "moe": (
        "attention:moe",
        {
            "dense": {"algorithm": "dense"},
            "ragged": {"algorithm": "ragged"},
            "capacity": {"algorithm": "capacity"},
            "capacity, factor 1.25": {"algorithm": "capacity", "capacity_factor": 1.25},
        },
    ),
    "mamba": ("mamba", {name: {"algorithm": name} for name in ("sequential", "chunked", "associative", *HERE)}),
    "mamba2": ("mamba2", {name: {"algorithm": name} for name in ("recurrent", "chunked")}),
    "rwkv4": (
        "rwkv4_time:rwkv4_channel",
        {name: {"algorithm": name} for name in ("sequential", "associative", *HERE)},
    ),
    "rwkv7": ("rwkv7_first:rwkv7_channel", {name: {"algorithm": name} for name in ("sequential", "chunked")}),
}


def model_of(section: str, fields: dict, width: int, dtype: str) -> ModelConfig:
    """One layer of the section's mixer, at sizes that grow with the width."""
    heads = width // 64
    base = ModelConfig(width=width, depth=1, attention=AttentionConfig(heads, heads, 64), compute_dtype=dtype)
    moe = MoeConfig(experts=8, active=2, hidden=round(2.6875 * width))
    base = replace(base, moe=moe, embedding_norm=section.startswith("rwkv"), pattern=CASES[section][0])
    return replace(base, **{section: replace(getattr(base, section), **fields)})


def compiled(model: ModelConfig, batch: int, length: int):
    """(compiled step, its arguments)."""
    config = RunConfig(model=model, training=TrainingConfig(steps=1, batch_size=batch, sequence_length=length))
    tokens = jax.random.randint(jax.random.key(1), (batch, length + 1), 3, 259)
    data = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weights": jnp.ones((batch, length))}
    arguments = (language_model.init(model, jax.random.key(0)), data)
    step = jax.jit(lambda params, data: gradients(language_modelling(config), config.training, params, data))
    return step.lower(*arguments).compile(), arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("width", 256), ("length", 256), ("batch", 4), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    configure()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; width {asked.width}, batch {asked.batch} x", end=" ")
    print(f"{asked.length}, {asked.dtype}; gradients of one layer")
    programs, losses = {}, {}
    for section, (_, rows) in CASES.items():
        for row, fields in rows.items():
            model = model_of(section, fields, asked.width, asked.dtype)
            programs[section, row] = compiled(model, asked.batch, asked.length)
            program, arguments = programs[section, row]
            losses[section, row] = float(program(*arguments)[1].loss)
    seconds = {key: [] for key in programs}
    for _ in range(asked.rounds):
        for key, (program, arguments) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[key].append(time.perf_counter() - began)
    show(programs, losses, {key: statistics.median(taken) for key, taken in seconds.items()})


def show(programs: dict, losses: dict, seconds: dict) -> None:
    print(f"{'section':<8} {'algorithm':<22} {'ms':>9} {'times':>6} {'temporary MiB':>14} {'loss differs':>13}")
    for section, (_, rows) in CASES.items():
        first, fastest = losses[section, next(iter(rows))], min(seconds[section, row] for row in rows)
        for row, fields in rows.items():
            taken, memory = seconds[section, row], programs[section, row][0].memory_analysis().temp_size_in_bytes
            bare = model_of(section, fields, 64, "float32")
            chosen = algorithm(replace(bare, **{section: replace(getattr(bare, section), algorithm="auto")}), section)
            mark = "  auto" if chosen == fields["algorithm"] else ""
            apart = abs(losses[section, row] / first - 1)
            print(f"{section:<8} {row:<22} {1e3 * taken:>9.2f} {taken / fastest:>6.2f} ", end="")
            print(f"{memory / 2**20:>14.1f} {apart:>13.1e}{mark}")


if __name__ == "__main__":
    main()

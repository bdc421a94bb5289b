"""Published models compiled for TPU pods that are not there: do they fit, and what does a step execute and exchange?

    .venv/bin/python tests/benchmarks/ahead_of_time.py [--rows NAME ...]

Needs libtpu (pip install ".[tpu]"), whose compiler runs without a TPU; a row takes it minutes. The step is the
project's own: bfloat16 products, layers scanned and computed again in the backward pass, but in the row that keeps all.
Printed for each chip and step: memory at its peak and that of the arguments; matrix products over the closed form
(executed_flops: 4/3 if every product of the forward pass were computed twice), with those that kernels state, which
for experts are all places of a round, empty ones too (models/experts/ragged.py); the GiB of each kind of collective
(research/training/hlo_cost.py), and what they carry over the least of the mesh's strategies in numbers of two bytes
(tests/mesh_traffic.py); and the seconds of the compilation. That XLA compiled a program proves its shardings and that
it fits; it was not run, so nothing here says that it is right or fast. libtpu writes programs down for v5e alone: of
others, only the memory is known.
"""

import argparse
import importlib.util
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

# libtpu would ask a TPU machine's metadata server what it is, and lock its chips against a second process: there are
# none of these here, where jax computes on the CPU.
os.environ.update(JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost", TPU_WORKER_ID="0")
os.environ.update(TPU_ACCELERATOR_TYPE="v5litepod-256", ALLOW_MULTIPLE_LIBTPU_LOAD="1", TF_CPP_MIN_LOG_LEVEL="1")

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from research.config import AdamWConfig, DataConfig, EvaluationConfig, MeshConfig, RunConfig, TrainingConfig
from research.plan import executed_cost
from research.presets import preset
from research.sharding import make_mesh
from research.training.compiled import CompiledProgram, compiled
from research.training.hlo_cost import COLLECTIVES
from research.training.objective import language_modelling
from research.training.step import make_program

sys.path.insert(0, str(Path(__file__).parents[1]))
from mesh_traffic import least_bytes, traffic_bytes

BYTES = 2  # of most numbers that cross: bfloat16


class Row(NamedTuple):
    preset: str
    topology: str
    mesh: MeshConfig
    batch: int
    length: int = 4096
    remat: str = "full"
    optimizer: AdamWConfig = AdamWConfig()
    microbatches: int = 1
    accumulation_dtype: str = "float32"


ROWS = {
    "llama3-8b": Row("llama3-8b", "v5e:16x16", MeshConfig(data=1, fsdp=64, tensor=4), 256),
    "llama3-8b kept": Row("llama3-8b", "v5e:16x16", MeshConfig(data=1, fsdp=64, tensor=4), 64, remat="none"),
    "llama3-8b fsdp": Row("llama3-8b", "v5e:16x16", MeshConfig(data=1, fsdp=256), 256),
    "mamba2-2.7b": Row("mamba2-2.7b", "v5e:16x16", MeshConfig(data=1, fsdp=64, tensor=4), 256),
    "rwkv7-2.9b": Row("rwkv7-world-2.9b", "v5e:8x8", MeshConfig(data=1, fsdp=64), 64),
    "rwkv4-3b": Row("rwkv4-3b", "v5e:8x8", MeshConfig(data=1, fsdp=64), 64),
    "mamba-2.8b": Row("mamba-2.8b", "v5e:8x8", MeshConfig(data=1, fsdp=64), 64),
    "jamba-v0.1": Row("jamba-v0.1", "v5e:16x16", MeshConfig(data=1, fsdp=8, tensor=2, expert=16), 256),
    "mixtral-8x7b": Row("mixtral-8x7b", "v5p:4x4x4", MeshConfig(data=1, fsdp=8, expert=8), 64),
    "mixtral-8x7b v5e": Row("mixtral-8x7b", "v5e:16x16", MeshConfig(data=1, fsdp=32, expert=8), 256),
}
EXCHANGED = tuple(f"{kind} GiB" for kind in COLLECTIVES)
COLUMNS = ("peak GiB", "arguments GiB", "products", *EXCHANGED, "over the least", "replications", "seconds")


def run_of(row: Row) -> RunConfig:
    """The row's run; what "auto" stands for is chosen for the chips of the mesh."""
    model = replace(preset(row.preset).model, remat=row.remat, compute_dtype="bfloat16")
    data = DataConfig(tokenizer="sentencepiece", vocab_size=model.vocab_size)
    training = TrainingConfig(
        steps=1,
        batch_size=row.batch,
        sequence_length=row.length,
        microbatches=row.microbatches,
        accumulation_dtype=row.accumulation_dtype,
    )
    evaluation = EvaluationConfig(batch_size=row.batch)
    return RunConfig(model=model, data=data, training=training, evaluation=evaluation, optimizer=row.optimizer)


def compiled_step(row: Row) -> CompiledProgram:
    """The training step, compiled for the row's topology."""
    config = run_of(row)
    mesh = make_mesh(row.mesh, topologies.get_topology_desc(row.topology, "tpu").devices)
    objective = language_modelling(config)
    program = make_program(config, mesh, objective)  # outside set_mesh: there is no device that it could compute on
    batch = {
        name: jax.ShapeDtypeStruct((row.batch, row.length), jnp.float32 if name == "weights" else jnp.int32)
        for name in objective.arrays
    }
    with jax.set_mesh(mesh):
        return compiled(program.train.lower(program.abstract_state, batch, program.numbers))


def cells(row: Row) -> list[str]:
    """What the row's columns hold; of a step that does not fit, the compiler's words in the first."""
    began = time.perf_counter()
    try:
        step = compiled_step(row)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        return [f"refused: {str(error).strip().splitlines()[0]}"] + [""] * (len(COLUMNS) - 1)
    seconds = time.perf_counter() - began
    memory = [f"{size / 2**30:.2f}" for size in (step.peak_bytes, step.arguments_bytes)]
    if step.cost is None:
        counts = ["not written down"] + [""] * (len(COLLECTIVES) + 1)
    else:
        chips = len(topologies.get_topology_desc(row.topology, "tpu").devices)
        products = chips * step.cost.matmul_flops / executed_cost(run_of(row), "tpu").executed_flops
        unknown = [*step.cost.unknown_loops, *step.cost.unread]  # whose work is not in the count
        counts = [f"{products:.2f}" + (f" without {', '.join(unknown)}" if unknown else "")]
        exchanged = step.cost.collective_bytes
        counts += [f"{exchanged.get(kind, 0) / 2**30:.1f}" for kind in COLLECTIVES]
        counts.append(f"{traffic_bytes(exchanged) / least_bytes(run_of(row), vars(row.mesh), BYTES):.2f}")
    return [*memory, *counts, str(step.replications), f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    asked = parser.parse_args().rows
    if importlib.util.find_spec("libtpu") is None:
        print('skipped: no libtpu to compile with (pip install ".[tpu]")')
        return
    print(f"| model | chips | mesh | batch | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 4) + "|", sep="\n")
    for name in asked:
        row = ROWS[name]
        axes = ", ".join(f"{axis} {size}" for axis, size in vars(row.mesh).items() if size > 1)
        about = (row.preset, row.topology, axes, f"{row.batch} x {row.length}")
        print(f"| {' | '.join((*about, *cells(row)))} |", flush=True)


if __name__ == "__main__":
    main()

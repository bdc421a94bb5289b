"""Every sequence mixer at equal parameters: time and temporary memory of a training step against sequence length.

    .venv/bin/python tests/benchmarks/mixers.py [FOLDER] [LONGEST]

Writes mixers.csv, mixers.png and mixers.pdf into FOLDER (runs/benchmarks), for lengths that double from 256 to LONGEST
(8192). A model is one layer of the mixer alone, of the width whose mixer comes nearest to 262,144 parameters (four
heads of attention at width 256), under an embedding and a head of 259 ids; a step is the gradient of its mean loss over
one sequence, float32. Mixers take turns in every round; a figure is the median of the rounds.
"""

import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from research.config import AttentionConfig, ConfigError, ModelConfig, RunConfig, TrainingConfig
from research.models import language_model
from research.models.mixers import SEQUENCE_MIXERS
from research.training.objective import language_modelling
from research.training.runtime import configure
from research.training.step import gradients

PARAMS, SHORTEST, LONGEST, ROUNDS = 262_144, 256, 8192, 3
WIDTHS = range(64, 513, 16)
# Ends of the names of mixers that cannot stand alone: beside an encoder, or above RWKV-7's first layer, which can.
NEED_OTHERS = ("cross_attention", "_additive", "_multiplicative", "rwkv7_time")
VARIANTS = {"s4 diagonal": ("s4", {"s4": {"kernel": "diagonal"}})}  # row -> (mixer, fields of its sections)
MARKERS = "os^Dv<>PX*hdp8"


def rows() -> dict[str, tuple[str, dict]]:
    """What the table holds: every mixer that can stand alone, as it is and in its variants."""
    own = {name: (name, {}) for name in SEQUENCE_MIXERS if not name.endswith(NEED_OTHERS)}
    return own | {row: variant for row, variant in VARIANTS.items() if variant[0] in own}


def model_of(mixer: str, fields: dict, length: int) -> ModelConfig:
    """The mixer alone at the width that comes nearest to PARAMS, with as many heads at any width."""
    candidates = []
    for width in WIDTHS:
        try:
            model = ModelConfig(width=width, depth=1, pattern="attention", attention=AttentionConfig(4, 4, width // 4))
            model = replace(
                model,
                mamba2=replace(model.mamba2, head_dim=model.mamba2.inner(width) // 8),
                s4=replace(model.s4, kernel_length=length),
                rwkv7=replace(model.rwkv7, head_dim=width // 4),
            )
            changed = {section: replace(getattr(model, section), **values) for section, values in fields.items()}
            candidates.append(replace(model, pattern=mixer, **changed))
        except ConfigError:
            continue  # a width that the mixer's heads do not divide
    return min(candidates, key=lambda model: abs(SEQUENCE_MIXERS[mixer].params(model) - PARAMS))


def compiled(model: ModelConfig, length: int):
    """(compiled step, its arguments)."""
    config = RunConfig(model=model, training=TrainingConfig(steps=1, batch_size=1, sequence_length=length))
    tokens = jax.random.randint(jax.random.key(1), (1, length + 1), 3, 259)
    batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weights": jnp.ones((1, length))}
    arguments = (language_model.init(model, jax.random.key(0)), batch)
    return jax.jit(lambda params, batch: gradients(language_modelling(config), config.training, params, batch)).lower(
        *arguments
    ).compile(), arguments


def measure(lengths: list[int]) -> pd.DataFrame:
    """One row a mixer and length."""
    programs, table = {}, []
    for length in lengths:
        for row, (mixer, fields) in rows().items():
            model = model_of(mixer, fields, length)
            programs[row, length] = compiled(model, length)
            table.append({
                "mixer": row, "length": length, "width": model.width, "params": SEQUENCE_MIXERS[mixer].params(model),
                "temporary_bytes": programs[row, length][0].memory_analysis().temp_size_in_bytes,
            })  # fmt: skip
            jax.block_until_ready(programs[row, length][0](*programs[row, length][1]))
            print(f"compiled {row} at {length}", flush=True)
    seconds = {key: [] for key in programs}
    for _ in range(ROUNDS):
        for key, (program, arguments) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            seconds[key].append(time.perf_counter() - began)
    for entry in table:
        entry["step_seconds"] = statistics.median(seconds[entry["mixer"], entry["length"]])
    return pd.DataFrame(table)


def draw(table: pd.DataFrame, stem: Path) -> None:
    """Two panels, time and memory, with one legend beside them."""
    matplotlib.rcParams.update({"font.size": 8, "axes.grid": True, "grid.color": "0.9", "pdf.fonttype": 42})
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    for axes, column, unit, label in (
        (panels[0], "step_seconds", 1e-3, "training step (ms)"),
        (panels[1], "temporary_bytes", 2**20, "temporary memory (MiB)"),
    ):
        _panel(axes, table, column, unit)
        axes.set(xscale="log", yscale="log", xlabel="sequence length (tokens)", ylabel=label)
        lengths = sorted(table["length"].unique())
        axes.set_xticks(lengths, [str(length) for length in lengths], minor=False)
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(stem.with_suffix(".png"), dpi=200)
    figure.savefig(stem.with_suffix(".pdf"))


def _panel(axes: Axes, table: pd.DataFrame, column: str, unit: float) -> None:
    """Lines in the order of their right ends, which is the legend's, told apart by marker and colour."""
    longest = table[table["length"] == table["length"].max()].set_index("mixer")["step_seconds"]
    order = list(longest.sort_values(ascending=False).index)
    for i, mixer in enumerate(order):
        mine = table[table["mixer"] == mixer].sort_values("length")
        colour = matplotlib.colormaps["turbo"](0.05 + 0.9 * i / max(len(order) - 1, 1))
        marker = MARKERS[i % len(MARKERS)]
        axes.plot(mine["length"], mine[column] / unit, marker + "-", color=colour, label=mixer, ms=4, lw=1.2)


def main() -> None:
    configure()
    folder = Path(sys.argv[1] if sys.argv[1:] else "runs/benchmarks")
    longest = int(sys.argv[2]) if sys.argv[2:] else LONGEST
    lengths = [length for length in (SHORTEST * 2**i for i in range(20)) if length <= longest]
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(os.sched_getaffinity(0))} cores; load average {os.getloadavg()[0]:.2f}")
    table = measure(lengths)
    table.to_csv(folder / "mixers.csv", index=False)
    draw(table, folder / "mixers")
    for column, unit in (("step_seconds", 1e-3), ("temporary_bytes", 2**20)):
        wide = table.pivot(index=["mixer", "width", "params"], columns="length", values=column) / unit
        print(f"\n{column} / {unit:g}\n{wide.round(1).to_string()}")


if __name__ == "__main__":
    main()

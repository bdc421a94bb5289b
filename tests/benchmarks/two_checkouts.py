"""Training steps of every architecture, of this checkout and of another, in turn: has anything become slower?

    git worktree add ../before COMMIT
    .venv/bin/python tests/benchmarks/two_checkouts.py ../before [--patterns NAME ...] [--rounds 9]

Width 256, 2 layers, 4 x 256 tokens, float32, whatever "auto" stands for in each checkout; AdamW, on all cores. Each
checkout has a process of its own with the installed libraries of this one, and they take turns. Printed: median
milliseconds of a step, and the median over rounds of other / this (above 1: this checkout is faster).
"""

import argparse
import statistics
import sys
from pathlib import Path

PATTERNS = {
    "attention": "attention:mlp",
    "experts": "attention:moe",
    "latent attention": "latent_attention:mlp",
    "mamba": "mamba",
    "mamba2": "mamba2",
    "rwkv4": "rwkv4_time:rwkv4_channel",
    "rwkv7": "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
    "s4": "s4:mlp",
    "h3": "h3:mlp",
    "lstm": "lstm:mlp",
    "gru": "gru:mlp",
}
BATCH, LENGTH = 4, 256


def side(checkout: str, patterns: list[str]) -> None:
    """One checkout's process."""
    sys.path.insert(0, checkout)
    import jax
    import numpy as np

    from research.config import ModelConfig, RunConfig, TrainingConfig
    from research.sharding import make_mesh
    from research.training import runtime
    from research.training.objective import language_modelling
    from research.training.step import make_program

    runtime.configure()
    assert Path(sys.modules["research"].__file__).is_relative_to(Path(checkout).resolve())

    def stepping(pattern: str):
        model = ModelConfig(width=256, depth=2, pattern=pattern)
        config = RunConfig(model=model, training=TrainingConfig(batch_size=BATCH, sequence_length=LENGTH))
        program = make_program(config, make_mesh(config.mesh), language_modelling(config))
        stream = np.random.default_rng(0).integers(0, 259, (BATCH, LENGTH + 1)).astype(np.int32)
        weights = np.ones((BATCH, LENGTH), np.float32)
        batch = {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weights": weights}
        kept = [program.init()]
        numbers = (program.numbers,) if hasattr(program, "numbers") else ()  # an earlier checkout's step has none

        def step() -> None:
            kept[0], metrics = program.train(kept[0], batch, *numbers)
            jax.block_until_ready(metrics)

        return step

    answer({name: stepping(PATTERNS[name]) for name in patterns}, lambda: None, per_round=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", nargs="?", help="a checkout of another commit")
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=list(PATTERNS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.other is None:
        print("skipped: there is no other checkout to compare this one with")
        return
    if asked.side:
        side(asked.other, asked.patterns)
        return
    here, there = str(Path(__file__).resolve().parents[2]), str(Path(asked.other).resolve())
    command = [sys.executable, __file__, "--side", "--patterns", *asked.patterns, "--"]
    sides = take_turns({"this": [*command, here], "other": [*command, there]}, asked.rounds)
    for name, outcome in sides.items():
        if outcome.error is not None:
            sys.exit(f"{name}: {outcome.error}")
    print(f"{'':18}{'this ms':>9}{'other ms':>10}{'other / this':>14}")
    for name in asked.patterns:
        rounds = zip(sides["this"].seconds, sides["other"].seconds)
        ratio = statistics.median(other[name] / this[name] for this, other in rounds)
        this, other = (1e3 * sides[which].median(name) for which in ("this", "other"))
        print(f"{name:18}{this:9.1f}{other:10.1f}{ratio:14.2f}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from turns import answer, take_turns

    main()

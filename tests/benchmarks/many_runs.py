"""What `isoflop plan`, `status` and `report` cost on an experiment of ten thousand runs that are all done.

    python tests/benchmarks/many_runs.py [--runs 10000] [--runs-dir DIR]

Run folders are made up, with the losses of a law; each verb is then one process, and its seconds of wall and of CPU
are printed. Nothing is trained.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from research.config import RunConfig, run_name, to_json
from research.plan import load, run_cost

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
from research.config import AttentionConfig, DataConfig, MlpConfig, ModelConfig, RunConfig, TrainingConfig
from research.plan import IsoFlop

EXPERIMENT = IsoFlop(
    name="many",
    question="What do the verbs cost on a large experiment?",
    base=RunConfig(
        model=ModelConfig(width=64, depth=4, attention=AttentionConfig(4, 4, 16), mlp=MlpConfig(hidden=168)),
        data=DataConfig(train_tokens=10**13),
        training=TrainingConfig(batch_size=8, sequence_length=64),
    ),
    budgets=(1e14, 3e14, 1e15, 3e15, 1e16),
    sizes=tuple((16 * width, depth) for width in range(4, 9) for depth in range(3, 7)),
    tokens_per_param=(1e-3, 1e9),
    min_steps=1,
    seeds=tuple(range(RUNS // 100)),
)
"""
PHASES = ("start", "compile", "train", "data", "evaluation", "checkpoint")


def make_folder(runs_dir: Path, config: RunConfig) -> None:
    """The folder of a finished run: its files are as many and as long as a short run leaves them."""
    folder = runs_dir / config.experiment / run_name(config)
    (folder / "checkpoints" / str(config.training.steps)).mkdir(parents=True)
    cost = run_cost(config)
    noise = 0.01 * ((config.training.seed * 2654435761) % 1000 / 1000 - 0.5)
    loss = 1.7 + 400 / cost.params**0.34 + 410 / cost.tokens**0.28 + noise
    lines = [{"kind": "train", "step": step, "loss_nats": loss, "gradient_norm": 1.0} for step in range(1, 201)]
    result = {"loss_nats": loss, "bits_per_byte": loss, "loss_nats_prose": loss, "train_loss_nats": loss}
    result |= {f"{phase}_seconds": 1.0 for phase in PHASES}
    result |= {"wall_seconds": 6.0, "matmul_flops_per_second": 1e11, "backend": "cpu", "devices": 1}
    (folder / "config.json").write_text(to_json(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "result.json").write_text(json.dumps(result, indent=2))
    (folder / "claim.lock").touch()


def timed(verb: str, path: Path, runs_dir: Path) -> None:
    command = [sys.executable, "-m", "research.command.cli", verb, str(path), "--runs-dir", str(runs_dir)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, check=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{verb:<8}{wall:8.2f} s wall {cpu:8.2f} s CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000, help="a multiple of 100")
    parser.add_argument("--runs-dir", type=Path, help="kept, and used again if it is there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        runs_dir = arguments.runs_dir or Path(temporary) / "runs"
        path = Path(temporary) / "many.py"
        path.write_text(EXPERIMENT.replace("RUNS", str(arguments.runs)))
        if not runs_dir.exists():
            for config in load(path).runs():
                make_folder(runs_dir, config)
        for verb in ("plan", "status", "report"):
            timed(verb, path, runs_dir)


if __name__ == "__main__":
    main()

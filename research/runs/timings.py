"""Where an experiment's time went: phases of the command, recorded as they end, and their account for the report."""

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

RUN_PHASES = ("start", "compile", "train", "data", "evaluation", "checkpoint")  # <phase>_seconds in the runs table


@contextlib.contextmanager
def phase(experiment_dir: Path, name: str) -> Iterator[dict[str, Any]]:
    """Time a block and append it to timings.jsonl, however it ends; what the block puts into the dict goes with it."""
    notes: dict[str, Any] = {}
    written = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.monotonic()
    try:
        yield notes
    finally:
        record = {"phase": name, "began": written, "seconds": time.monotonic() - began, **notes}
        with open(experiment_dir / "timings.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")


def read_phases(experiment_dir: Path) -> list[dict[str, Any]]:
    """Every phase of every invocation so far, oldest first."""
    path = experiment_dir / "timings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def account(experiment_dir: Path, table: "pandas.DataFrame") -> dict[str, Any] | None:
    """The time of all sweeps and held-out runs so far, for analysis.report; None if no run is done.

    wall_seconds: wall time in which workers lived. run_seconds: that times the workers there were, which is what there
    was to use. phase_seconds: how the done runs used it, the start of worker processes counted with the runs' starts;
    what remains went by without a run, or with one that is not done. model_flops, executed_flops: training FLOPs of the
    done runs, of their models' work and of the matrix products that their programs executed. matmul_flops_per_second:
    the rate at which the latter would have taken as long as each would at the best matrix-product rate measured in its
    own process, all workers together. ideal_share: of run_seconds, the time that takes.
    """
    training = [record for record in read_phases(experiment_dir) if record.get("workers")]
    done = table[table["status"] == "done"]
    if not training or done.empty:
        return None
    wall_seconds = sum(record["seconds"] for record in training)
    run_seconds = sum(record["seconds"] * record["workers"] for record in training)
    phase_seconds = {name: float(done[f"{name}_seconds"].sum()) for name in RUN_PHASES}
    phase_seconds["start"] += sum(record.get("worker_start_seconds", 0.0) for record in training)
    executed_flops = float(done["executed_flops"].sum())
    ideal_seconds = float((done["executed_flops"] / done["matmul_flops_per_second"]).sum())
    return {
        "wall_seconds": wall_seconds,
        "run_seconds": run_seconds,
        "phase_seconds": phase_seconds,
        "model_flops": float(done["flops"].sum()),
        "executed_flops": executed_flops,
        "matmul_flops_per_second": executed_flops / ideal_seconds * run_seconds / wall_seconds,
        "ideal_share": ideal_seconds / run_seconds,
    }

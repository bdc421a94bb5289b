"""Where a plan's time went: phases of the command, recorded as they end, and their account for the report."""

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from analysis.lifecycle import PHASES, Status
from research.runs.records import append_line, read_lines

if TYPE_CHECKING:
    import pandas

Notes = dict[str, int | float | list[str]]


class Account(TypedDict):
    """How the workers' time was used, in the names that analysis.report reads.

    wall_seconds: wall time of all sweeps and held-out runs. run_seconds: worker-seconds available (wall_seconds x
    workers). phase_seconds: worker-seconds that finished runs spent in each phase, the start of worker processes
    counted with the runs' starts; the rest was idle or went to unfinished runs. model_flops, executed_flops: training
    FLOPs of the finished runs, of their models' work and of the matrix products that their programs executed.
    matmul_flops_per_second: combined matmul peak of all workers (FLOP/s); executed_flops / this is the ideal wall time.
    ideal_share: ideal worker-seconds over run_seconds.
    """

    wall_seconds: float
    run_seconds: float
    phase_seconds: dict[str, float]
    model_flops: float
    executed_flops: float
    matmul_flops_per_second: float
    ideal_share: float


@contextlib.contextmanager
def phase(path: Path, name: str) -> Iterator[Notes]:
    """Time a block and append it to the timings file at `path`, however the block ends.

    What the block puts into the dict is recorded too: `workers`, how many processes trained, `worker_start_seconds`,
    summed over them, and `runs`, the names of the runs they were given.
    """
    notes: Notes = {}
    written = datetime.now(UTC).isoformat(timespec="seconds")
    began = time.monotonic()
    try:
        yield notes
    finally:
        append_line(path, {"phase": name, "began": written, "seconds": time.monotonic() - began, **notes})


def account(path: Path, table: "pandas.DataFrame") -> Account | None:
    """The account of the timings file at `path` and the plan's runs; None if none of those it trained is done."""
    training = [record for record in read_lines(path, ("phase", "seconds")) if "workers" in record and "runs" in record]
    here = {run for record in training for run in record["runs"]}  # others were trained under another plan
    done = table[(table["status"] == Status.DONE) & table["run"].isin(here)]
    done = done.dropna(subset=["executed_flops", "matmul_flops_per_second"])
    if done.empty:
        return None
    wall_seconds = sum(record["seconds"] for record in training)
    run_seconds = sum(record["seconds"] * record["workers"] for record in training)
    phase_seconds = {name: float(done[f"{name}_seconds"].sum()) for name in PHASES}
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

"""Where the workers' time of a sweep went, and what the same training would take at the best matrix-product rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.report.document import Number, Paragraph, Section, Table

TRAINING = "train"


@dataclass(frozen=True)
class PhaseTime:
    """Worker-seconds of one phase, and their share of all worker-seconds."""

    seconds: float
    share: float


@dataclass(frozen=True)
class TimeAccount:
    """The time of a sweep.

    wall_seconds: of the sweep. worker_seconds: available, wall_seconds times the workers. model_flops,
    executed_flops: of the finished runs, their models' work and the matrix products that their programs executed.
    ideal_seconds: that the latter take at matmul_flops_per_second, the best matrix-product rate of all workers together
    (FLOP/s); ideal_share: of the wall time. phases: worker-seconds that finished runs spent in each. unused: worker-
    seconds without a run, or with one that is not done. outside_training: share of worker-seconds outside training
    steps, unused ones included.
    """

    wall_seconds: float
    worker_seconds: float
    model_flops: float
    executed_flops: float
    matmul_flops_per_second: float
    ideal_seconds: float
    ideal_share: float
    phases: dict[str, PhaseTime]
    unused: PhaseTime
    outside_training: float


def time_account(timings: Mapping[str, Any]) -> TimeAccount:
    """The account of what a sweep measured.

    timings: model_flops and executed_flops (FLOP), matmul_flops_per_second (FLOP/s), wall_seconds, run_seconds
    (worker-seconds available) and phase_seconds (phase -> worker-seconds, "train" among them).
    """
    wall, available, phases = timings["wall_seconds"], timings["run_seconds"], timings["phase_seconds"]
    ideal = timings["executed_flops"] / timings["matmul_flops_per_second"]
    unused = max(0.0, available - sum(phases.values()))
    return TimeAccount(
        wall_seconds=wall,
        worker_seconds=available,
        model_flops=timings["model_flops"],
        executed_flops=timings["executed_flops"],
        matmul_flops_per_second=timings["matmul_flops_per_second"],
        ideal_seconds=ideal,
        ideal_share=ideal / wall,
        phases={name: PhaseTime(seconds, seconds / available) for name, seconds in phases.items()},
        unused=PhaseTime(unused, unused / available),
        outside_training=1 - phases[TRAINING] / available,
    )


def time_section(account: TimeAccount) -> Section:
    """The account as text and a table."""
    rows = [(name, account.phases[name]) for name in sorted(account.phases, key=lambda name: name != TRAINING)]
    rows.append(("no run, or a run that is not done", account.unused))
    named = {TRAINING: "training steps"}
    speed = (
        "Model FLOPs of the finished runs: ", Number(account.model_flops, unit="FLOP"), "; matrix products executed "
        "for them: ", Number(account.executed_flops, unit="FLOP"), ". Best matrix-product rate of all workers: ",
        Number(account.matmul_flops_per_second, unit="FLOP/s"), ". At that rate they take ",
        Number(account.ideal_seconds, ".1f", "s"), ", ", Number(account.ideal_share, ".1%"), " of the sweep's wall "
        "time of ", Number(account.wall_seconds, ".1f", "s"), ".",
    )  # fmt: skip
    share = (
        Number(account.outside_training, ".1%"), " of the workers' ", Number(account.worker_seconds, ".1f", "s"),
        " passed outside training steps.",
    )  # fmt: skip
    table = Table(
        ("phase", "worker-seconds", "share"),
        tuple((named.get(name, name), Number(at.seconds, ".1f"), Number(at.share, ".1%")) for name, at in rows),
    )
    return Section("Time", (Paragraph(speed), table, Paragraph(share)))

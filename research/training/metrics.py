"""A run's metrics: one JSON object per line, mirrored to TensorBoard on request.

Lines of kind `train` (one per step), `evaluation`, and `session` (one per start of the process) share one file. Numbers
wait on the device until `flush`, so that logging never makes a step wait for the one before it.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import jax

from research.runs.records import read_lines


class NonFiniteLossError(FloatingPointError):
    """A loss became NaN or infinite; `step` is the first such step."""

    def __init__(self, line: dict[str, Any]):
        kind = "" if line["kind"] == "train" else "held-out "
        super().__init__(f"{kind}loss_nats = {line['loss_nats']} at step {line['step']}")
        self.step = line["step"]


def read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a metrics file, oldest first; damaged ones are left out as in runs/records.py."""
    return read_lines(path, ("kind", "step"))


class MetricsLog:
    """Appends to `path`. Opening it drops lines past `resumed_step`: those steps will be taken again."""

    def __init__(self, path: Path, resumed_step: int, tensorboard: Path | None):
        kept = [line for line in read(path) if line["step"] <= resumed_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        temporary.replace(path)
        self._file = path.open("a")
        self._pending: list[dict[str, Any]] = []
        self._writer = _tensorboard_writer(tensorboard, resumed_step) if tensorboard else None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self._writer:
            self._writer.close()

    def add(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Queue one line; values may be arrays still being computed."""
        self._pending.append({"kind": kind, "step": step, **values})

    def flush(self, to_disk: bool = False) -> float | None:
        """Write what is queued; returns the last training loss among it, in nats. to_disk: a power cut leaves it there.

        Raises NonFiniteLossError, after writing, if a training or held-out loss among it is not finite.
        """
        lines = [_plain(line) for line in jax.device_get(self._pending)]
        self._pending = []
        self._file.write("".join(_to_json(line) + "\n" for line in lines))
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())
        for line in lines if self._writer else ():
            for name, value in line.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{line['kind']}/{name}", value, line["step"])
        for line in lines:
            if not math.isfinite(line.get("loss_nats", 0.0)):
                raise NonFiniteLossError(line)
        return next((line["loss_nats"] for line in reversed(lines) if line["kind"] == "train"), None)


def _to_json(line: dict[str, Any]) -> str:
    """JSON has no NaN: a number that is not finite is written as null."""
    return json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()})


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value if isinstance(value, (str, int, float)) else float(value) for key, value in line.items()}


def _tensorboard_writer(path: Path, resumed_step: int) -> Any:
    from tensorboardX import SummaryWriter  # imported on request: most runs write no event files

    return SummaryWriter(str(path), purge_step=resumed_step)

"""A run's lifecycle in the words of the runs table: which status it has, and the phases its time is divided into.

Apart from runs_table.py because every training process needs these words and none needs pandas.
"""

import enum


class Status(enum.StrEnum):
    """How far a run is; the values of the column `status`."""

    PENDING = "pending"  # nothing trained yet
    RUNNING = "running"  # a live process holds the claim
    PARTIAL = "partial"  # started but not running; resumes from its latest checkpoint
    DONE = "done"  # finished, with its measurements
    FAILED = "failed"  # ended without them; not trained again unless asked


# Phase of a run -> what happens in it. The column `<phase>_seconds` holds its time.
PHASES = {
    "start": "start of the process and set-up of the run, compilation aside",
    "compile": "tracing and compilation",
    "train": "inside training steps",
    "data": "waiting for batches",
    "evaluation": "held-out evaluation",
    "checkpoint": "saving and restoring checkpoints",
}

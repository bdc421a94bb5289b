"""What a sweep shows: lines that move in a terminal, lines that stay anywhere else."""

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from research.command.progress import duration, show
from research.config import DataConfig, RunConfig, run_name
from research.execution.events import Cause, Ended, Following, Progressed, Started, Stopping
from research.execution.sweep import new_sweep
from research.runs import Status

BASE = RunConfig(experiment="exp", data=DataConfig(train_tokens=100_000_000))
CONFIGS = [
    replace(BASE, family=family, training=replace(BASE.training, steps=1000)) for family in ("one", "two", "three")
]
ONE, TWO, THREE = map(run_name, CONFIGS)


def test_lines_where_there_is_no_terminal(tmp_path, capsys):
    with show(Console(force_terminal=False, width=400), new_sweep(CONFIGS, CONFIGS, tmp_path, 2)) as watch:
        for event in (
            Started(ONE, 0),
            Ended(THREE, Status.RUNNING, "left to process 7 on elsewhere", Cause.HELD),
            Started(TWO, 40),
            Progressed(ONE, 1000, 4.25),
            Ended(ONE, Status.DONE),
            Ended(TWO, Status.PARTIAL, "its worker ended by signal SIGTERM; tried again", Cause.LOST),
            Started(TWO, 40),
            Ended(TWO, Status.FAILED, "ValueError: a bug", Cause.ERROR),
            Following((THREE,)),
            Stopping(),
            Ended(THREE, Status.PENDING, cause=Cause.STOPPED),  # it was only in the queue
        ):
            watch(event)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    one, two, three = (name.rpartition("-")[0] for name in (ONE, TWO, THREE))
    assert lines == [
        f"start    {one}",
        f"running  {three}  left to process 7 on elsewhere",
        f"start    {two} at step 40",
        f"done     {one}  0s  training loss 4.250",
        f"partial  {two}  at step 40  its worker ended by signal SIGTERM; tried again",
        f"start    {two} at step 40",
        f"failed   {two}  ValueError: a bug",
        "waiting  for a run that another process is training",
        "stopping: runs save a checkpoint at their next step (Ctrl-C again ends at once)",
    ]


def test_live_lines_show_runs_and_the_sweep(tmp_path):
    console = Console(force_terminal=True, width=120, record=True, file=io.StringIO())
    with show(console, new_sweep(CONFIGS[:2], CONFIGS[:2], tmp_path, 2)) as watch:
        for event in (Started(ONE, 0), Started(TWO, 40), Progressed(ONE, 10, 4.25)):
            watch(event)
        time.sleep(0.01)
        watch(Progressed(ONE, 30, 4.125))
        watch(Ended(TWO, Status.DONE))
    text = console.export_text()
    assert "30/1,000" in text and "loss 4.125" in text and "tokens/s" in text
    assert "1/2 runs" in text and "FLOPs" in text and "left" in text


@pytest.mark.parametrize("seconds, text", [(12.4, "12s"), (185, "3m 05s"), (7620, "2h 07m"), (59.7, "1m 00s")])
def test_duration(seconds, text):
    assert duration(seconds) == text

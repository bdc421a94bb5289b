"""The time left of a sweep, on sweeps simulated in virtual time."""

import random
from dataclasses import dataclass

import numpy as np
import pytest

from research.execution.events import Ended, Progressed, Started, Stopping
from research.execution.sweep import RunState, Sweep, advance, seconds_left
from research.runs import Status

REPORTS = 25  # per run


@dataclass(frozen=True)
class Machine:
    """What one worker takes: to start a run, for each step whatever its size, and for each FLOP."""

    start_seconds: float
    step_seconds: float
    flop_seconds: float


def make_sweep(workers: int) -> Sweep:
    """15 runs, longest first: 3 budgets, 5 sizes; at a budget, a size 10 times larger takes a tenth of the steps."""
    runs = {}
    for budget in (1e13, 2e12, 2e11):
        for size in np.geomspace(5e4, 5e5, 5):
            flops_per_step = 6 * size * 2048
            state = RunState(round(budget / flops_per_step), 2048, flops_per_step, 2 * size * 65_536, Status.PENDING)
            runs[f"run-{budget:g}-{size:g}"] = state
    return Sweep(runs, tuple(runs), workers)


def simulate(sweep: Sweep, machine: Machine, noise: random.Random) -> list:
    """(time, event) pairs of a sweep on a machine, where each run has a speed of its own within 20 %."""
    free_at = [0.0] * sweep.workers
    events = []
    for name in sweep.selected:
        run, worker = sweep.runs[name], free_at.index(min(free_at))
        now, speed = free_at[worker], noise.uniform(0.8, 1.2)
        events.append((now, Started(name, 0)))
        now += machine.start_seconds * noise.uniform(0.7, 1.3)
        done = 0
        for step in map(int, np.unique(np.linspace(1, run.steps, REPORTS, dtype=int))):
            now += speed * (step - done) * (machine.step_seconds + machine.flop_seconds * run.flops_per_step)
            done = step
            events.append((now, Progressed(name, done, 3.0)))
        now += speed * machine.flop_seconds * run.evaluation_flops
        events.append((now, Ended(name, Status.DONE)))
        free_at[worker] = now
    return sorted(events, key=lambda pair: pair[0])


@pytest.mark.parametrize(
    "machine",
    [Machine(6.0, 0.004, 1 / 15e9), Machine(25.0, 0.004, 1 / 15e9), Machine(0.5, 0.0002, 1 / 1e9)],
    ids=["a CPU core", "a cold compilation cache", "arithmetic alone"],
)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_time_left_is_right_within_a_factor_of_2(machine, workers):
    """From one tenth of the sweep to nine; after that, the last run's own speed is all there is."""
    for seed in range(10):
        sweep = make_sweep(workers)
        events = simulate(sweep, machine, random.Random(seed))
        end = events[-1][0]
        for now, event in events:
            sweep = advance(sweep, event, now)
            if 0.1 * end <= now <= 0.9 * end:
                assert 0.5 <= seconds_left(sweep, now) / (end - now) <= 2.0, f"at {now / end:.0%} with seed {seed}"
        assert seconds_left(sweep, end) == 0.0


def test_time_left_by_hand():
    """Two workers, three runs of 100 steps without evaluation."""
    run = RunState(100, 2048, 1e9, 0.0, Status.PENDING)
    sweep = Sweep({"a": run, "b": run, "c": run}, ("a", "b", "c"), workers=2)
    sweep = advance(advance(sweep, Started("a", 0), 0.0), Started("b", 0), 0.0)
    assert seconds_left(sweep, 3.0) is None
    sweep = advance(sweep, Progressed("a", 10, 3.0), 4.0)
    assert seconds_left(sweep, 4.0) is None  # no rate yet
    sweep = advance(sweep, Progressed("a", 20, 3.0), 5.0)  # 10 steps a second after a start of 4 seconds
    # a: 80 steps, 8 s. b: as c, less the 5 s since it started. c: a start and 100 steps, 14 s, which is the longest;
    # shared evenly, (8 + 9 + 14) / 2 is longer.
    assert seconds_left(sweep, 5.0) == pytest.approx(15.5)
    sweep = advance(advance(sweep, Ended("a", Status.DONE), 13.0), Ended("b", Status.FAILED), 13.0)
    assert seconds_left(sweep, 13.0) == pytest.approx(14.0)


def test_states_advance_by_events():
    sweep = make_sweep(2)
    name = sweep.selected[0]
    steps = sweep.runs[name].steps
    sweep = advance(sweep, Started(name, 10), 0.0)
    assert sweep.runs[name].is_active
    sweep = advance(advance(sweep, Progressed(name, 20, 3.0), 4.0), Progressed(name, 30, 2.9), 5.0)
    assert sweep.runs[name].tokens_per_second == 10 * 2048
    done = advance(sweep, Ended(name, Status.DONE), 50.0)
    assert done.runs[name].step == steps and not done.runs[name].is_active
    stopped = advance(advance(sweep, Stopping(), 6.0), Ended(name, Status.PARTIAL), 6.0)
    assert stopped.stopping and stopped.runs[name].step == 30 and not stopped.runs[name].is_active
    again = advance(stopped, Started(name, 30), 9.0).runs[name]
    assert again.is_active and again.first is None and again.status == Status.RUNNING

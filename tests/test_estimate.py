"""The time left of a sweep: closed forms, and sweeps simulated in virtual time."""

import random

import numpy as np
import pytest

from research.execution.estimate import PRIOR, Rates, Work, fit_rates, sweep_seconds, work_seconds
from research.execution.events import Ended, Progressed, Started, Stopping
from research.execution.sweep import RunState, Sweep, advance, measurements, seconds_left
from research.runs import Status

REPORTS = 25  # per run


def test_rates_are_recovered_from_exact_measurements():
    truth = Rates(start_seconds=7.0, step_seconds=0.02, flop_seconds=3e-11)
    works = [Work(1, steps, flops) for steps in (100, 1000) for flops in (1e10, 1e12)]
    # The prior weighs as much as one measurement off by 15 %: 100 repeats of each bring its pull below 1 %.
    rates = fit_rates(100 * [(work, work_seconds(truth, work)) for work in works])
    np.testing.assert_allclose(
        [rates.start_seconds, rates.step_seconds, rates.flop_seconds],
        [truth.start_seconds, truth.step_seconds, truth.flop_seconds],
        rtol=1e-2,
    )


def test_without_measurements_the_prior_stands_and_rates_are_never_negative():
    assert fit_rates([]) == PRIOR
    contradictory = fit_rates([(Work(1, 1000, 1e12), 5.0), (Work(1, 2000, 1e12), 2.0)])
    assert min(vars(contradictory).values()) > 0


def test_what_is_not_measured_stays_at_the_prior():
    rates = fit_rates([(Work(0, 1000, 0.0), 20.0)])
    assert rates.step_seconds == pytest.approx(0.02, rel=0.05)
    assert rates.start_seconds == pytest.approx(PRIOR.start_seconds)
    assert rates.flop_seconds == pytest.approx(PRIOR.flop_seconds)


@pytest.mark.parametrize(
    "active, pending, workers, expected",
    [
        ([], [], 2, 0.0),
        ([5.0], [], 1, 5.0),
        ([], [3.0, 3.0, 2.0, 2.0, 2.0], 2, 7.0),  # longest first: 3+2+2 and 3+2, where the best possible is 6
        ([4.0, 1.0], [2.0, 3.0], 2, 6.0),  # the worker free at 1 takes 3, ends at 4; then either takes 2
        ([], [9.0], 4, 9.0),
    ],
)
def test_schedule(active, pending, workers, expected):
    assert sweep_seconds(active, pending, workers) == expected


def make_sweep(workers: int) -> Sweep:
    """15 runs: 3 budgets, 5 sizes; at a budget, a size 10 times larger takes a tenth of the steps."""
    runs = {}
    for budget in (2e11, 2e12, 1e13):
        for size in np.geomspace(5e4, 5e5, 5):
            flops_per_step = 6 * size * 2048
            state = RunState(round(budget / flops_per_step), 2048, flops_per_step, 2 * size * 65_536, Status.PENDING)
            runs[f"run-{budget:g}-{size:g}"] = state
    order = sorted(runs, key=lambda name: -work_seconds(PRIOR, runs[name].work(0, runs[name].steps, 1)))
    return Sweep(runs, tuple(order), workers)


def simulate(sweep: Sweep, truth: Rates, noise: random.Random) -> list:
    """(time, event) pairs of a sweep in which runs take what `truth` says, give or take a run's own 20 %."""
    free_at = [0.0] * sweep.workers
    events = []
    for name in sweep.selected:
        run, worker = sweep.runs[name], free_at.index(min(free_at))
        now, speed = free_at[worker], noise.uniform(0.8, 1.2)
        events.append((now, Started(name, 0)))
        now += truth.start_seconds * noise.uniform(0.7, 1.3)
        done = 0
        for step in np.unique(np.linspace(1, run.steps, REPORTS, dtype=int)):
            now += speed * work_seconds(truth, Work(0, int(step) - done, (int(step) - done) * run.flops_per_step))
            done = int(step)
            events.append((now, Progressed(name, done, 3.0)))
        now += speed * truth.flop_seconds * run.evaluation_flops
        events.append((now, Ended(name, Status.DONE)))
        free_at[worker] = now
    return sorted(events, key=lambda pair: pair[0])


@pytest.mark.parametrize(
    "truth, known_from",
    [
        (Rates(6.0, 0.004, 1 / 15e9), 0.1),  # the demo on a CPU
        (Rates(25.0, 0.004, 1 / 15e9), 0.1),  # with a cold compilation cache
        (Rates(0.5, 0.0002, 1 / 1e9), 0.1),  # arithmetic alone, on a slow machine
        (
            Rates(40.0, 0.020, 1 / 50e12),
            0.25,
        ),  # an accelerator 1000 times the prior's speed, after its first run at the latest
    ],
    ids=["cpu", "cold", "slow", "accelerator"],
)
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_time_left_is_right_within_a_factor_of_2(truth, known_from, workers):
    """Up to nine tenths of the sweep; after that the last run's own 20 % is all there is."""
    for seed in range(10):
        sweep = make_sweep(workers)
        events = simulate(sweep, truth, random.Random(seed))
        end = events[-1][0]
        for index, (now, event) in enumerate(events):
            sweep = advance(sweep, event, now)
            if known_from * end <= now <= 0.9 * end and index % 10 == 0:
                assert 0.5 <= seconds_left(sweep, now) / (end - now) <= 2.0, f"at {now / end:.0%} with seed {seed}"
        assert seconds_left(sweep, end) == 0.0


def test_states_advance_by_events():
    sweep = make_sweep(2)
    name = sweep.selected[0]
    steps = sweep.runs[name].steps
    sweep = advance(sweep, Started(name, 10), 0.0)
    assert sweep.runs[name].is_active and measurements(sweep) == []
    sweep = advance(sweep, Progressed(name, 20, 3.0), 4.0)
    assert [(work.starts, work.steps, seconds) for work, seconds in measurements(sweep)] == [(1, 10, 4.0)]
    sweep = advance(sweep, Progressed(name, 30, 2.9), 5.0)
    assert sweep.runs[name].tokens_per_second == 10 * 2048
    assert [(work.starts, work.steps, seconds) for work, seconds in measurements(sweep)] == [(1, 10, 4.0), (0, 10, 1.0)]
    done = advance(sweep, Ended(name, Status.DONE), 50.0)
    assert done.runs[name].step == steps and not done.runs[name].is_active
    assert [(work.starts, work.steps, seconds) for work, seconds in measurements(done)] == [(1, 10, 49.0), (0, 10, 1.0)]
    stopped = advance(advance(sweep, Stopping(), 6.0), Ended(name, Status.PARTIAL), 6.0)
    assert stopped.stopping and stopped.runs[name].step == 30 and not stopped.runs[name].is_active

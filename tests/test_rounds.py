"""Rounds that follow from results: sweeps that extend themselves, sequential search, what a repeated command finds."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from fake_isoflop import pretend
from fake_trainers import BEST_BATCH, BEST_RATE, bowl_loss
from test_search import BASE, BATCH, RATE

from analysis import runs_table
from research.command import cli, verbs
from research.config import ConfigError, RunConfig, run_name
from research.execution import local
from research.plan import Axis, Family, Grid, IsoFlop, Runs, Search
from research.runs import PlanFolder, Status, folder_of, open_run, rounds_of

FAR = Axis("optimizer.learning_rate", 3e-4, 1.2e-3, in_grid=3)  # the best at width 16, 0.01, is 3 steps beyond
SEARCH = Search("search", "?", BASE, (FAR,), "grid", sizes=((16, 2),), tokens=(20_480,))
GRID = Grid(
    "grid",
    "?",
    BASE,
    (Family("inside", ("optimizer.beta1=0.8",), (5e-3, 1e-2, 2e-2)), Family("low"), Family("high", (), (0.1, 0.3))),
    learning_rates=(6.25e-4, 1.25e-3, 2.5e-3),
    seeds=(0, 1),
    extend=6,
)


def finished(plan, loss_of=bowl_loss):
    """The rounds of a plan, each a list of its runs, and the losses of all."""
    losses, found, configs = {}, [], plan.runs()
    while configs:
        assert not losses.keys() & set(configs)
        found.append(list(configs))
        losses |= {config: loss_of(config) for config in configs}
        configs = plan.following(losses)
    return found, losses


def rates(configs, **fields):
    """The learning rates of runs, those with some values of other fields."""
    chosen = [run for run in configs if all(getattr(run, name) == value for name, value in fields.items())]
    return sorted({run.optimizer.learning_rate for run in chosen})


def best(losses):
    return min(losses, key=losses.get)


def test_plans_without_rounds_have_none():
    losses = dict.fromkeys(GRID.runs(), 1.0)
    assert replace(GRID, extend=0).following(losses) == Runs("list", "?", GRID.runs()).following(losses) == ()
    plan = IsoFlop("i", "?", BASE, (3e9,), ((8, 1), (16, 1), (16, 2)), (0.1, 1e3), min_sizes=3, min_steps=10)
    assert plan.following(dict.fromkeys(plan.runs(), 1.0)) == ()
    assert len(finished(replace(SEARCH, extend=0))[0]) == 1


def test_a_sweep_with_the_best_inside_is_left_and_others_reach_theirs_on_either_side():
    """The planted best is 0.01: each family stops with one rate beyond it, at its own ratio, and with every seed."""
    found, losses = finished(GRID)
    runs = [run for configs in found for run in configs]
    assert rates(runs, family="inside") == [5e-3, 1e-2, 2e-2]
    assert rates(runs, family="low") == [6.25e-4, 1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2]
    assert rates(runs, family="high") == pytest.approx([3.69e-3, 1.11e-2, 3.33e-2, 0.1, 0.3], rel=0.01)
    assert [len(configs) for configs in found] == [16, 4, 4, 4]
    assert all(run.training.seed == index % 2 for configs in found for index, run in enumerate(configs))
    for family in ("low", "high"):
        ours = {run: loss for run, loss in losses.items() if run.family == family}
        assert min(rates(ours)) < best(ours).optimizer.learning_rate < max(rates(ours))


def test_no_more_values_follow_than_asked_for():
    runs = [run for configs in finished(replace(GRID, extend=2))[0] for run in configs]
    assert rates(runs, family="low") == [6.25e-4, 1.25e-3, 2.5e-3, 5e-3, 1e-2]
    assert len(rates(runs, family="high")) == 2 + 2


def test_the_best_is_judged_by_the_mean_over_seeds():
    """One seed at the highest rate is the luckiest of all runs, and its other seed the worst."""
    lucky = {0: 0.5, 1: 3.0}
    plan = replace(GRID, families=GRID.families[:1])
    found, losses = finished(plan, lambda run: bowl_loss(run) * (
        lucky[run.training.seed] if run.optimizer.learning_rate == 2e-2 else 1.0
    ))  # fmt: skip
    assert best(losses).optimizer.learning_rate == 2e-2 and len(found) == 1


def test_each_cell_of_a_search_is_extended_by_itself():
    """The best falls as 1 / width, so that a wide model needs fewer steps; a value is one step of the grid further."""
    found, losses = finished(replace(SEARCH, sizes=((16, 2), (64, 2)), extend=9))
    narrow, wide = (rates([run for run in losses if run.model.width == width]) for width in (16, 64))
    assert narrow == [3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3, 9.6e-3, 1.92e-2]
    assert wide == narrow[:5]  # its best is 0.0025
    assert [len(configs) for configs in found] == [6, 2, 2, 1, 1]


def test_axes_are_extended_with_the_others_at_their_best():
    found, losses = finished(replace(SEARCH, axes=(FAR, replace(BATCH, low=2, high=4)), extend=9))
    assert len(found[0]) == 6 and all(len(configs) <= 2 for configs in found[1:])
    run = best(losses)
    assert abs(math.log(run.optimizer.learning_rate / BEST_RATE)) < math.log(2) / 2
    assert run.training.batch_size in (8, 16) and max(r.training.batch_size for r in losses) > BEST_BATCH
    assert {run.training.tokens for run in losses} == {20_480}


def test_a_sweep_ends_where_no_run_can_follow():
    """Of shares above 1 and of batches that leave too few steps there are no runs."""
    warmup = replace(SEARCH, axes=(Axis("optimizer.warmup_fraction", 0.5, 0.9, "linear", in_grid=3),), extend=9)
    found, losses = finished(warmup, lambda run: 2 - run.optimizer.warmup_fraction)
    assert sorted(run.optimizer.warmup_fraction for run in losses) == [0.5, 0.7, 0.9] and len(found) == 1
    batches = finished(replace(SEARCH, axes=(BATCH,), extend=9), lambda run: 1 / run.training.batch_size)[1]
    assert max(run.training.batch_size for run in batches) == 32 == 20_480 // 32 // SEARCH.min_steps
    down = finished(replace(SEARCH, axes=(BATCH,), extend=9), lambda run: 1 + run.training.batch_size)[1]
    assert min(run.training.batch_size for run in down) == 1
    unordered = replace(
        SEARCH, axes=(Axis("optimizer.schedule", scale="choices", choices=("cosine", "wsd")),), extend=9
    )
    assert len(finished(unordered)[0]) == 1


def test_rates_that_diverged_are_never_the_best():
    beyond = lambda run: math.inf if run.optimizer.learning_rate > 6e-4 else 1 / run.optimizer.learning_rate  # noqa: E731
    found, losses = finished(replace(SEARCH, extend=9), beyond)
    assert rates(losses) == [3e-4, 6e-4, 1.2e-3] and len(found) == 1
    assert len(finished(replace(SEARCH, extend=9), lambda run: math.inf)[0]) == 1


@pytest.mark.parametrize("method", ["random", "sobol"])
def test_points_off_a_grid_are_extended_too(method):
    plan = replace(SEARCH, method=method, points=6, extend=12)
    _, losses = finished(plan)
    first = set(plan.runs())
    assert abs(math.log(best(losses).optimizer.learning_rate / BEST_RATE)) < math.log(4) / 5
    assert best(losses) not in first and max(rates(losses)) > best(losses).optimizer.learning_rate


def test_a_sequential_search_comes_nearer_than_as_many_random_points():
    """Over ten seeds, 24 points each: the mean excess over the planted bottom of a bowl in rate and weight decay."""
    axes = (Axis("optimizer.learning_rate", 1e-4, 1.0), Axis("optimizer.weight_decay", 1e-3, 10.0))

    def loss(run):
        x, y = math.log(run.optimizer.learning_rate / 0.01), math.log(run.optimizer.weight_decay / 0.1)
        return math.exp(0.02 * (x * x + 0.3 * x * y + 0.5 * y * y))

    def excess(method):
        plans = (replace(SEARCH, axes=axes, method=method, points=24, points_seed=seed) for seed in range(10))
        losses = [finished(plan, loss)[1] for plan in plans]
        assert [len(found) for found in losses] == [24] * 10
        return sum(min(found.values()) - 1 for found in losses) / 10

    assert excess("optuna") < 0.7 * excess("random")


def test_optuna_proposes_different_points_in_rounds_and_ends_where_there_are_no_more():
    plan = replace(SEARCH, axes=(RATE, BATCH), method="optuna", points=10, per_round=4, sizes=((16, 2), (8, 1)))
    found, losses = finished(plan)
    assert [len(configs) for configs in found] == [8, 8, 4] and len(losses) == 20
    assert finished(plan)[0] == found != finished(replace(plan, points_seed=1))[0]
    few = replace(plan, axes=(BATCH,), sizes=())
    assert sorted(run.training.batch_size for run in finished(few)[1]) == [4, 8, 16, 32]
    assert len(finished(replace(plan, axes=(FAR,), extend=2))[0]) > 3  # and is extended at its end


def test_what_optuna_may_propose_is_tried_before_anything_is_trained():
    with pytest.raises(ConfigError, match="steps of 64 sequences of 32 tokens, fewer than min_steps"):
        replace(SEARCH, axes=(replace(BATCH, high=64),), method="optuna", points=4).runs()


def write(runs_dir: Path, config: RunConfig, loss: float | None = None) -> None:
    """The run's folder with a result; one of no loss diverged."""
    folder = open_run(runs_dir, config)
    if loss is None:
        folder.write_failure(3, "loss_nats = nan at step 3")
    else:
        folder.write_result({"loss_nats": loss})


@pytest.mark.parametrize("method", ["grid", "optuna"])
def test_an_interrupted_round_is_found_again_and_goes_on_with_the_same_proposals(tmp_path, method):
    points = None if method == "grid" else 8
    plan = replace(SEARCH, method=method, points=points, extend=9, sizes=((16, 2), (32, 2)))
    expected, _ = finished(plan)
    for number, configs in enumerate(expected):
        *earlier, known = rounds_of(PlanFolder(plan, tmp_path))
        assert [list(one) for one in earlier] == expected[:number] and list(known) == configs
        write(tmp_path, configs[-1], bowl_loss(configs[-1]))  # the last is done first, and then it stops
        again = [list(one) for one in rounds_of(PlanFolder(replace(plan), tmp_path))]
        assert again == expected[: number + 1]
        for config in configs[:-1]:
            write(tmp_path, config, bowl_loss(config))
    assert [list(one) for one in rounds_of(PlanFolder(plan, tmp_path))] == expected


def test_a_round_waits_for_runs_that_an_exception_ended_and_not_for_those_that_diverged(tmp_path):
    plan = PlanFolder(replace(SEARCH, extend=9), tmp_path)
    low, middle, high = plan.configs
    write(tmp_path, low, 3.0)
    write(tmp_path, middle, 2.0)
    open_run(tmp_path, high).write_failure(None, "MemoryError", "Traceback ...")
    assert len(list(rounds_of(plan))) == 1 and folder_of(tmp_path, high).loss_nats() is None
    folder_of(tmp_path, high).forget_failure()
    write(tmp_path, high)
    assert folder_of(tmp_path, high).loss_nats() == math.inf and len(list(rounds_of(plan))) == 1
    write(tmp_path, high, 1.0)
    assert [len(configs) for configs in rounds_of(plan)] == [3, 1]


@dataclass(frozen=True)
class Endless:
    """A plan whose next round is its first one."""

    name: str = "endless"
    searched: tuple[str, ...] = ()

    def runs(self):
        return SEARCH.runs()

    def following(self, losses):
        return self.runs()


def test_a_plan_that_would_never_end_is_refused(tmp_path):
    for config in SEARCH.runs():
        write(tmp_path, config, 1.0)
    with pytest.raises(ConfigError, match=r"following of endless = \['.*'\]: is a run of an earlier round. Fix"):
        list(rounds_of(PlanFolder(Endless(), tmp_path)))


@pytest.fixture
def command(monkeypatch, tmp_path):
    """`isoflop VERB` on a search in a planted bowl, in this process."""
    monkeypatch.setattr(local, "LocalEngine", local.LocalEngine)
    monkeypatch.setattr(verbs, "_prepare", verbs._prepare)
    pretend("train_in_bowl")
    file = tmp_path / "search.py"
    axes = "(replace(FAR, high=4.8e-3, in_grid=5), replace(BATCH, low=8, high=16))"
    file.write_text(
        "from test_rounds import BATCH, FAR, SEARCH, replace\n"
        f"EXPERIMENT = replace(SEARCH, axes={axes}, extend=2, min_steps=10)"
    )
    return lambda verb, *more: cli.main([verb, str(file), "--runs-dir", str(tmp_path / "runs"), *more])


def test_run_trains_every_round_and_a_repeated_command_nothing_again(command, tmp_path, capsys):
    assert command("run", "--workers", "2") == 0
    printed = capsys.readouterr().out
    (folder,) = (tmp_path / "runs" / "search" / "plans").glob("default-*")
    phases = [json.loads(line)["phase"] for line in (folder / "timings.jsonl").read_text().splitlines()]
    assert [name for name in phases if name != "prepare"] == ["sweep", "round_1", "round_2", "fit", "report"]
    assert "search: round 2 after the sweep" in printed and "14 of 14 runs are done." in printed
    table = runs_table.read(folder / "runs.parquet")
    assert list(table["status"]) == [Status.DONE] * 14 and set(table["batch_tokens"]) == {256, 512, 1024}
    assert table.loc[table["loss_nats"].idxmin(), "learning_rate"] == 9.6e-3
    report = (folder / "report.md").read_text()
    assert "## The best runs of each cell" in report and "0.0096 |" in report and "0.0096 \\*" not in report
    assert {"sweep.json", "figures"} <= {path.name for path in folder.iterdir()}
    before = {path: path.read_bytes() for path in (tmp_path / "runs" / "search").glob("*/metrics.jsonl")}
    assert len(before) == 14

    assert command("run") == 0
    assert "round 1" not in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert command("status") == 0
    assert "14 of 14 runs done" in capsys.readouterr().out
    later = run_name(next(reversed(list(rounds_of(PlanFolder(_planned(tmp_path), tmp_path / "runs")))))[0])
    assert command("status", "--only", later) == 0
    assert "1 of 1 runs done" in capsys.readouterr().out


def _planned(tmp_path: Path) -> Search:
    from research.plan import load

    return load(tmp_path / "search.py")

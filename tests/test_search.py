"""Searches as plans: the values of each scale, the points of each method, the cells, and what is refused."""

import hashlib
import io
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import qmc
from test_plan_folder import Asked

from research.command import verbs
from research.config import (
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    DataConfig,
    MlpConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
    fingerprint,
    from_dict,
    override,
    replaced,
    run_name,
    to_dict,
    value_at,
)
from research.plan import Axis, Experiment, Search, load, run_cost
from research.plan.points import drawn, unit_points

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
DRAWN = ("random", "sobol", "halton")
RATE = Axis("optimizer.learning_rate", 1e-3, 1e-1, in_grid=3)
DECAY = Axis("optimizer.weight_decay", 0.0, 0.3, "linear", in_grid=4)
BATCH = Axis("training.batch_size", 4, 32, "power_of_two")
BASE = RunConfig(
    model=ModelConfig(width=16, depth=2, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(hidden=40)),
    data=DataConfig(train_tokens=10_000_000),
    training=TrainingConfig(batch_size=16, sequence_length=32),
)
SEARCH = Search("search", "Which is best?", BASE, (RATE, DECAY), points=8, tokens=(20_480, 40_960))


def seen(runs, *fields):
    """The values of some fields in runs, in order."""
    return [tuple(value_at(run, name) for name in fields) for run in runs]


def test_each_scale_has_its_values_with_both_ends():
    assert RATE.grid() == (1e-3, 1e-2, 1e-1)
    assert DECAY.grid() == (0.0, 0.1, 0.2, 0.3)
    assert BATCH.grid() == (4, 8, 16, 32) and replace(BATCH, low=5, high=40).grid() == (8, 16, 32)
    assert Axis("model.depth", 1, 9, "integer", in_grid=3).grid() == (1, 5, 9)
    assert Axis("optimizer.schedule", scale="choices", choices=("cosine", "wsd")).grid() == ("cosine", "wsd")
    for axis in (RATE, DECAY, BATCH):
        shares = np.linspace(0, 1, 201).tolist()
        values = [axis.at(share) for share in shares]
        assert values == sorted(values) and (values[0], values[-1]) == axis.ends
        assert all(value == float(f"{value:.3g}") for value in values)
    # The geometric mean is the middle of a logarithmic axis; values within ends that have more digits stay within.
    assert RATE.at(0.5) == 1e-2 and Axis("x", 1.2346e-3, 1.2349e-3).at(0.5) == 1.2346e-3


def test_a_grid_has_every_combination_in_every_cell_and_seed():
    plan = replace(SEARCH, method="grid", points=None, sizes=((16, 2), (32, 2)), seeds=(0, 1))
    runs = plan.runs()
    assert len(runs) == len(set(runs)) == 3 * 4 * (2 * 2) * 2
    settings = ("optimizer.learning_rate", "optimizer.weight_decay")
    assert set(seen(runs, *settings)) == {(rate, decay) for rate in RATE.grid() for decay in DECAY.grid()}
    assert {(run.model.width, run.training.tokens) for run in runs} == {
        (w, t) for w in (16, 32) for t in (20_480, 40_960)
    }


def test_a_run_is_what_overrides_of_the_base_make_and_shares_what_it_does_not_change():
    run = replace(SEARCH, method="grid", points=None).runs()[-1]
    assert run == override(
        BASE,
        [
            "experiment=search", "optimizer.learning_rate=0.1", "optimizer.weight_decay=0.3", "training.steps=80",
            f"budget_flops={run_cost(run).flops}",
        ],
    )  # fmt: skip
    assert run.data is BASE.data and run.evaluation is BASE.evaluation
    assert replaced(BASE, {"optimizer.beta2": 0.9, "optimizer.beta1": 0.8}).optimizer == AdamWConfig(
        beta1=0.8, beta2=0.9
    )


@pytest.mark.parametrize("method", DRAWN)
def test_a_sequence_has_as_many_points_as_asked_for_and_more_begin_with_the_same(method):
    runs = replace(SEARCH, method=method, points=11).runs()
    assert len(runs) == len(set(runs)) == 2 * 11
    names = ("optimizer.learning_rate", "optimizer.weight_decay")
    assert seen(runs[:11], *names) == seen(runs[11:], *names)  # cells have the same points
    for axes in ((RATE, DECAY), (BATCH, RATE), (BATCH, Axis("model.depth", 1, 6, "integer"))):
        many = drawn(axes, method, 19, seed=3)
        assert len(set(many)) == 19
        assert all(drawn(axes, method, count, seed=3) == many[:count] for count in range(2, 19))
        assert drawn(axes, method, 19, seed=4) != many


@pytest.mark.parametrize("method", ["sobol", "halton"])
def test_quasi_random_points_are_spread_more_evenly_than_random_ones(method):
    """By scipy's centred discrepancy, in the unit cube and of the runs themselves, over seeds."""

    def of_runs(which: str, seed: int) -> float:
        runs = replace(SEARCH, method=which, points=32, points_seed=seed, tokens=(20_480,)).runs()
        rates, decays = np.array(seen(runs, "optimizer.learning_rate", "optimizer.weight_decay")).T
        return qmc.discrepancy(np.column_stack([np.log(rates / 1e-3) / math.log(100), decays / 0.3]))

    for measure in (lambda which, seed: qmc.discrepancy(unit_points(which, 2, 32, seed)), of_runs):
        even, random = (np.array([measure(which, seed) for seed in range(8)]) for which in (method, "random"))
        assert even.max() < random.min() and even.mean() < 0.4 * random.mean()


def test_a_batch_is_searched_at_equal_tokens():
    plan = replace(SEARCH, axes=(RATE, BATCH), points=16, tokens=(20_000, 41_000))
    runs = plan.runs()
    assert {run.training.batch_size for run in runs} == {4, 8, 16, 32}
    assert {run.training.tokens for run in runs} == {20_480, 40_960}  # whole steps of the largest batch
    assert {run.budget_flops / run_cost(run).flops for run in runs} == {20_000 / 20_480, 41_000 / 40_960}
    odd = replace(plan, axes=(RATE, Axis("training.batch_size", 5, 23, "integer")), tokens=(20_000,)).runs()
    assert all(abs(run.training.tokens - 20_000) <= (run.training.batch_tokens + 23 * 32) / 2 for run in odd)


def test_cells_of_a_budget_cost_it():
    plan = replace(SEARCH, tokens=(), budgets=(4e9, 8e9), sizes=((16, 2), (32, 2)))
    assert {run.budget_flops for run in plan.runs()} == {4e9, 8e9}
    for run in plan.runs():
        assert run_cost(run).flops == pytest.approx(run.budget_flops, abs=0.5 * run_cost(run).flops_per_step)
    alone = replace(SEARCH, tokens=())  # without either: the base's tokens
    assert {run.training.steps for run in alone.runs()} == {BASE.training.steps}


def test_choices_are_values_of_their_field():
    axes = (
        Axis("optimizer.schedule", scale="choices", choices=("cosine", "wsd")),
        Axis("model.tied_embeddings", scale="choices", choices=("true", "false")),
        Axis("training.batch_size", scale="choices", choices=("8", "12")),
    )
    runs = replace(SEARCH, axes=axes, method="grid", points=None, tokens=(20_480,)).runs()
    fields = [axis.field for axis in axes]
    assert len(runs) == 8 and {run.model.tied_embeddings for run in runs} == {True, False}
    assert seen(runs, *fields)[0] == ("cosine", True, 8)
    assert all(type(value_at(run, "training.batch_size")) is int for run in runs)
    assert {run.training.tokens for run in runs} == {53 * 12 * 32, 80 * 8 * 32}  # the first, and what comes nearest


def test_a_search_is_a_plan_that_is_written_and_read_back():
    assert isinstance(SEARCH, Experiment) and SEARCH.held_out_run(1e6) is None
    assert from_dict(Search, to_dict(SEARCH)) == SEARCH
    assert override(SEARCH, ["points=4", "seeds=1,2", "base.optimizer.beta2=0.9"]).runs()[0].training.seed == 1
    assert fingerprint(SEARCH) != fingerprint(replace(SEARCH, points_seed=1))
    names = [fingerprint(run) for run in SEARCH.runs()]
    assert names == [fingerprint(run) for run in replace(SEARCH, points_seed=0, extend=3).runs()]


@pytest.mark.parametrize(
    ("file", "plan", "runs"),
    [
        ("architectures", "aa5a43844be9", "b9927c315ffa"),
        ("isoflop_transformer", "fbac7c3e8852", "f2c85908283b"),
        ("moe_sparsity", "534e65277ceb", "e688683bf52f"),
        ("recall", "9cced36cf02d", "67a028177951"),
        ("seq2seq_bottleneck", "fc7d6c9524fd", "816c17eeba2f"),
        ("smoke", "2231264a97fe", "2cd179c1f710"),
    ],
)
def test_plans_that_were_there_before_keep_their_names(file, plan, runs):
    """A plan's folder is called by its fingerprint, its runs' by theirs: fields added later leave them alone."""
    experiment = load(EXPERIMENTS / f"{file}.py")
    names = "\n".join(map(run_name, experiment.runs()))
    assert (fingerprint(experiment), hashlib.sha256(names.encode()).hexdigest()[:12]) == (plan, runs)
    assert experiment.following(dict.fromkeys(experiment.runs(), 1.0)) == ()


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        (("optimizer.learning_rate",), r"axes: optimizer.learning_rate = \(None, None\): must have low < high. Fix"),
        (("optimizer.learning_rate", 1e-2, 1e-3), r"= \(0.01, 0.001\): must have low < high"),
        (
            ("optimizer.weight_decay", 0.0, 1.0),
            "axes: low of optimizer.weight_decay = 0.0: must be above zero on scale",
        ),
        (("model.depth", 1, 2.5, "integer"), "must have whole ends on scale 'integer'"),
        (("training.batch_size", 33, 63, "power_of_two"), r"= \(33, 63\): holds no power of two"),
        (("optimizer.learning_rate", 1e-3, 1e-2, "lograthmic"), "axes.scale = 'lograthmic': must be one of"),
        (("optimizer.learning_rate", 1e-3, 1e-2, "log", (1e-3,)), "are given beside scale 'log'"),
        (("optimizer.learning_rate", None, None, "choices", (1e-3,)), "must be at least two different values"),
        (("optimizer.learning_rate", 1.0, None, "choices", (1e-3, 1e-2)), "has choices, and so neither ends nor"),
        (("optimizer.learning_rate", 1e-3, 1e-2, "log", (), 1), "in_grid of optimizer.learning_rate = 1: must be at"),
    ],
)
def test_axes_that_cannot_be_are_refused(axis, message):
    with pytest.raises(ConfigError, match=message):
        Axis(*axis)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"axes": ()}, r"axes = \[\]: must be some, of different fields"),
        ({"axes": (RATE, RATE)}, "must be some, of different fields"),
        ({"axes": (Axis("optimizer.learning_rat", 1, 2),)}, "unknown field 'learning_rat'. Nearest: learning_rate"),
        ({"axes": (Axis("optimizer.beta2", 0.9, 1.1),)}, "optimizer.beta2 = 1.1: must lie between"),
        ({"axes": (Axis("training.batch_size", 4, 32),)}, "takes whole numbers, which scale 'log' does not keep to"),
        ({"axes": (Axis("training.steps", 10, 20, "integer"),)}, "since it is set by the tokens of a cell"),
        ({"axes": (Axis("model.width", 8, 32, "power_of_two"),)}, "since it is set by sizes"),
        ({"axes": (Axis("optimizer.name", scale="choices", choices=("lion", "adamw")),)}, "settings of one optimizer"),
        ({"axes": (Axis("logging.every", 1, 9, "integer"),)}, "logging.every': decides no number of these runs"),
        ({"axes": (Axis("optimizer.schedule", scale="choices", choices=("cos", "wsd")),)}, "must be one of 'cosine'"),
        ({"method": "bayes"}, "method = 'bayes': must be one of 'grid'"),
        ({"points": None}, "points = None: must be at least 2 for method 'sobol'. Fix: write points=16"),
        ({"method": "grid"}, "points = 8: must be none: the axes of a grid say how many"),
        ({"seeds": ()}, "seeds = .*must not be empty"),
        ({"extend": -1}, "extend = -1: must be at least 0"),
        ({"per_round": 0}, "per_round = 0: must be at least 1"),
        ({"budgets": (1e9,)}, "tokens = .*stand beside budgets"),
        ({"tokens": (0,)}, r"tokens = \(0,\): must be above zero"),
    ],
)
def test_searches_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        replace(SEARCH, **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": (1_000,)}, r"tokens = 1000: are too few at size 16x2: 2 steps of 16 sequences of 32 tokens"),
        ({"axes": (RATE, BATCH), "tokens": (5_000,)}, "5 steps of 32 sequences.*fewer than min_steps = 20"),
        ({"axes": (BATCH,), "points": 8}, "points = 8: only 4 different ones were found on these axes"),
        (
            {"axes": (Axis("optimizer.beta2", 0.9, 0.99),), "method": "grid", "points": None},
            "in_grid of .*must be given",
        ),
        (
            {"axes": (replace(BATCH, in_grid=5),), "method": "grid", "points": None},
            "= 5: is more than the 4 different values",
        ),
        (
            {"axes": (replace(RATE, high=1.001e-3),), "method": "grid", "points": None},
            "= 3: is more than the 1 different values that it has, rounded. Fix: lower it, or widen the axis",
        ),
        ({"sizes": ((18, 2),)}, "sizes = .*Nearest widths that fit"),
    ],
)
def test_searches_that_cannot_be_trained_are_refused_before_anything_is(fields, message):
    with pytest.raises(ConfigError, match=message):
        replace(SEARCH, **fields).runs()


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"method = 'optuna': needs Optuna.*Fix: pip install 'isoflop\[search\]'"):
        replace(SEARCH, method="optuna").runs()
    assert len(SEARCH.runs()) == 16  # the others do without


def test_the_plans_table_has_a_column_for_each_field_and_says_what_stays_equal(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from test_search import BATCH, RATE, SEARCH, replace\nEXPERIMENT = replace(SEARCH, axes=(RATE, BATCH))"
    )
    console = Console(file=io.StringIO(), width=200)
    assert verbs.plan(Asked(path, tmp_path / "runs", assignments=("extend=2",)), console) == 0
    printed = console.file.getvalue()
    assert printed.count("batch_size") == 2  # a heading, and what is said of it
    assert "training.batch_size is searched at equal tokens: the steps follow" in printed
    assert "up to 2 further values follow there" in printed and "16 runs" in printed
    rows = [line.split() for line in printed.splitlines() if " x " in line and line[0].isdigit()]
    assert len(rows) == 16 and {int(row[-1]) for row in rows} == {4, 8, 16, 32}
    assert {row[5] for row in rows} == {"20.5k", "41k"}  # the tokens of the cells

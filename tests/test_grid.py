"""Grids of families: which runs there are, what they cost, and what is refused."""

from dataclasses import replace

import pytest

from analysis.laws import LawError
from research.command import conclusion
from research.config import AttentionConfig, ConfigError, MlpConfig, ModelConfig, RunConfig, TrainingConfig, override
from research.plan import Experiment, Family, Grid, Runs, run_cost, scaled
from research.runs import PlanFolder

BASE = RunConfig(
    model=ModelConfig(width=16, depth=2, attention=AttentionConfig(2, 2, 8), mlp=MlpConfig(hidden=40)),
    training=TrainingConfig(batch_size=4, sequence_length=32),
)
GRID = Grid(
    "grid",
    "Which is better?",
    BASE,
    families=(Family("attention"), Family("lstm", ("model.pattern=lstm:mlp",), learning_rates=(1e-3,))),
    learning_rates=(1e-3, 4e-3),
    seeds=(0, 1),
    budgets=(1e9, 4e9),
    sizes=((16, 2), (32, 2)),
)


def test_every_family_has_every_budget_rate_and_seed():
    runs = GRID.runs()
    assert len(runs) == len(set(runs)) == 2 * 2 * 2 + 2 * 1 * 2
    assert [run.family for run in runs].count("lstm") == 4
    for run in runs:
        assert run.model.pattern == ("lstm:mlp" if run.family == "lstm" else "attention:mlp")
        assert run.model.width == (16 if run.budget_flops == 1e9 else 32)
        # Steps are whole: the cost is the budget up to half a step.
        assert run_cost(run).flops == pytest.approx(run.budget_flops, abs=0.5 * run_cost(run).flops_per_step)


def test_runs_are_those_that_overrides_of_the_base_make():
    """Families, rates and seeds are laid over each other; each run equals the one that is written out."""
    run = GRID.runs()[-1]
    changes = ["family=lstm", "model.pattern=lstm:mlp", "experiment=grid", "budget_flops=4e9", "training.seed=1"]
    changes += [f"training.steps={run.training.steps}", "optimizer.learning_rate=1e-3"]
    assert run == replace(override(BASE, changes), model=scaled(override(BASE, changes).model, 32, 2))


def test_every_plan_is_an_experiment():
    assert isinstance(GRID, Experiment) and isinstance(Runs("list", "?", ()), Experiment)
    assert not isinstance(BASE, Experiment)


def test_without_budgets_runs_take_the_base_steps():
    runs = replace(GRID, budgets=(), sizes=()).runs()
    assert {(run.budget_flops, run.training.steps) for run in runs} == {(None, BASE.training.steps)}


def test_without_budgets_every_size_is_trained_for_the_base_steps():
    runs = replace(GRID, budgets=(), sizes=((16, 2), (32, 2), (64, 2))).runs()
    assert {run.model.width for run in runs} == {16, 32, 64} and {run.training.steps for run in runs} == {
        BASE.training.steps
    }


def test_fields_can_be_set_from_the_command_line():
    assert override(GRID, ["seeds=5", "base.optimizer.weight_decay=0"]).runs()[0].training.seed == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"families": ()}, r"families = \[\]: must be at least one"),
        ({"families": (Family("a"), Family("a"))}, "of different names"),
        ({"sizes": ((16, 2),)}, r"sizes = \(\(16, 2\),\): must be one \(width, depth\) for each of the 2 budgets"),
        ({"learning_rates": ()}, "learning_rates = .*must not be empty"),
    ],
)
def test_grids_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        replace(GRID, **fields)


def test_a_budget_of_too_few_steps_names_the_family():
    with pytest.raises(ConfigError, match="too small for family 'attention'"):
        replace(GRID, budgets=(1e6, 4e9)).runs()


def test_an_unknown_law_is_refused_before_anything_trains():
    conclusion.check_law(replace(GRID, law="routed"))
    conclusion.check_law(GRID)
    with pytest.raises(LawError, match="law = 'ruted': no such law. Fix: use one of routed"):
        conclusion.check_law(replace(GRID, law="ruted"))


def test_families_of_a_plain_list_are_compared(tmp_path):
    """None is trained, which the comparison says; a list states no law of all."""
    runs = Runs("list", "Which?", GRID.runs())
    assert runs.law is None
    assert "no run of any family is done" in conclusion.fit(PlanFolder(runs, tmp_path)).why_not

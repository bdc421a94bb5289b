"""Recipes: each says what its paper prints, sets a plan's runs by their scale, and names what it cannot set."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from research.command import cli
from research.config import (
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    MlpConfig,
    ModelConfig,
    ParametrisationConfig,
    RunConfig,
    TrainingConfig,
    fingerprint,
    from_json,
    override,
    run_name,
    to_json,
)
from research.plan import Family, Grid, IsoFlop, Recipe, fitted_recipe, load, run_cost
from research.plan.recipe import scale_of
from research.plan.recipes import RULES, Scale, Setting, Settings

EXPERIMENTS = Path(__file__).parent.parent / "experiments"
BASE = RunConfig(
    model=ModelConfig(width=64, depth=4, attention=AttentionConfig(4, 2, 16), mlp=MlpConfig(168)),
    optimizer=AdamWConfig(learning_rate=1e-2),
    training=TrainingConfig(batch_size=8, sequence_length=64),
)
PLAN = IsoFlop(
    "recipes",
    "?",
    BASE,
    budgets=(1e11, 4e11),
    sizes=((32, 1), (64, 2), (96, 4)),
    tokens_per_param=(0.01, 1000.0),
    min_sizes=3,
    min_steps=2,
)
MUP = replace(BASE, model=replace(BASE.model, parametrisation=ParametrisationConfig("mup", 64)))
CONSTANTS = {
    "width_power": (("exponent", -0.5),),
    "fixed_warmup": (("warmup_tokens", 4096.0),),
    "fitted": (("learning_rate.scale", 0.3), ("learning_rate.params_exponent", -0.4)),
}


def said(name, params, tokens):
    return Recipe(name)(Scale.of_counts(params, tokens))


@pytest.mark.parametrize(
    ("depth", "width", "rate", "sequences"), [(30, 4096, 4.2e-4, 2304), (95, 8192, 3.2e-4, 4608)]
)  # fmt: skip
def test_deepseek_is_what_its_two_models_were_trained_with(depth, width, rate, sequences):
    """Its Table 2, at 2e12 tokens; they were rounded, the batch of the larger by 9 %."""
    length, tokens = 4096, 2e12
    per_token = 72 * depth * width**2 + 12 * depth * width * length
    scale = replace(Scale.of_counts(1, tokens), non_embedding_flops_per_token=per_token)
    found = Recipe("deepseek")(scale)
    assert found.learning_rate == pytest.approx(rate, rel=0.03)
    assert found.batch_tokens / length == pytest.approx(sequences, rel=0.1)


@pytest.mark.parametrize(
    ("params", "rate", "sequences"), [(28.7e6, 7.4e-3, 64), (57.4e6, 5.9e-3, 104), (108.5e6, 4.7e-3, 160)]
)
def test_porian_is_what_its_models_in_the_fitted_range_were_trained_with(params, rate, sequences):
    """The authors' list of runs (make_paper.ipynb of their repository), whose exponents were rounded."""
    found = said("porian", params, 20 * params)
    assert found.learning_rate == pytest.approx(rate, rel=0.05)
    assert found.batch_tokens / 2048 == pytest.approx(sequences, rel=0.06)
    assert found.warmup_tokens == params


def test_kaplan_breaks_down_above_1e10_params_as_the_paper_says():
    assert said("kaplan", 1.0, 1e9).learning_rate == 0.003239
    assert said("kaplan", math.e**10, 1e9).learning_rate == pytest.approx(0.001844)
    assert 0 < said("kaplan", 1e10, 1e9).learning_rate < 3e-5
    assert said("kaplan", 2e10, 1e9).learning_rate is None
    assert said("kaplan", 1e9, 1e9).batch_tokens == 2**19


def test_step_law_grows_as_it_says():
    one, wider, longer = said("step_law", 1e9, 1e11), said("step_law", 1e10, 1e11), said("step_law", 1e9, 1e12)
    assert one.learning_rate == pytest.approx(10 ** (math.log10(1.79) - 0.713 * 9 + 0.307 * 11))
    assert one.batch_tokens == wider.batch_tokens == pytest.approx(10 ** (math.log10(0.58) + 0.571 * 11))
    assert wider.learning_rate / one.learning_rate == pytest.approx(10**-0.713)
    assert longer.learning_rate / one.learning_rate == pytest.approx(10**0.307)


def test_params_are_counted_as_each_source_counts_them():
    """DeepSeek's equation 2 is for full heads and an mlp of 4 times the width; Porian's count is written out."""
    model = ModelConfig(
        width=64, depth=3, attention=AttentionConfig(4, 4, 16), mlp=MlpConfig(256, activation="gelu"), vocab_size=320
    )
    run = RunConfig(model=model, data=replace(BASE.data, vocab_size=320), training=BASE.training)
    scale = scale_of(run, run)
    assert scale.non_embedding_flops_per_token == 72 * 3 * 64**2 + 12 * 3 * 64 * 64
    assert scale.head_params == 12 * 3 * 64**2 + 320 * 64
    assert scale.non_embedding_params == scale.params - 2 * 320 * 64
    assert scale.non_embedding_params == 12 * 3 * 64**2 + 7 * 64  # and the gains of its norms


@pytest.mark.parametrize("name", RULES)
def test_every_recipe_sets_the_runs_of_a_plan(name):
    recipe = Recipe(name, CONSTANTS.get(name, ()))
    base = MUP if name == "mup_transfer" else BASE
    plan = replace(PLAN, base=base, recipe=recipe)
    runs = plan.runs()
    for run in runs:
        assert run.optimizer == replace(base.optimizer, learning_rate=recipe(scale_of(run, base)).learning_rate)
        assert run.training.batch_size == base.training.batch_size
    is_one_rate = name in ("base", "mup_transfer", "fixed_warmup")
    assert (len({run.optimizer.learning_rate for run in runs}) == 1) == is_one_rate
    assert from_json(IsoFlop, to_json(plan)) == plan


def test_a_run_is_trained_with_what_the_papers_formula_gives():
    run = replace(PLAN, recipe=Recipe("step_law")).runs()[-1]
    cost = run_cost(run)
    params = cost.params - cost.embedding_params
    assert run.optimizer.learning_rate == pytest.approx(1.79 * params**-0.713 * cost.tokens**0.307)


def test_a_batch_that_is_asked_for_is_whole_sequences_and_the_cost_stays_the_budget():
    plan = replace(PLAN, recipe=Recipe("step_law", sets=("learning_rate", "batch_tokens", "weight_decay", "beta2")))
    runs = plan.runs()
    for run in runs:
        cost = run_cost(run)
        assert abs(run.training.batch_tokens - 0.58 * (run.budget_flops / cost.flops * cost.tokens) ** 0.571) <= 32
        assert abs(cost.flops / run.budget_flops - 1) <= 0.5 / run.training.steps + 1e-12
        assert (run.optimizer.weight_decay, run.optimizer.beta2) == (0.1, 0.95)
    assert len({run.training.batch_size for run in runs}) > 3
    split = replace(BASE, training=replace(BASE.training, microbatches=4))
    assert all(run.training.batch_size % 4 == 0 for run in replace(plan, base=split).runs())


def test_a_warm_up_is_a_share_of_the_run_and_no_more_than_all_of_it():
    recipe = Recipe("porian", sets=("warmup_tokens",))
    run = replace(PLAN, recipe=recipe, tokens_per_param=(2.0, 1e3), min_sizes=1).runs()[0]
    assert run.optimizer.warmup_fraction == pytest.approx(scale_of(run, BASE).head_params / run.training.tokens)
    assert run.optimizer.learning_rate == BASE.optimizer.learning_rate
    fixed = replace(PLAN, recipe=Recipe("fixed_warmup", CONSTANTS["fixed_warmup"], sets=("warmup_tokens",)))
    for run in fixed.runs():
        assert run.optimizer.warmup_fraction * run.training.tokens == pytest.approx(4096)
        assert run.optimizer.learning_rate == BASE.optimizer.learning_rate
    with pytest.raises(ConfigError, match="'warmup_tokens': 'step_law' warms up over .* more than .*Fix:"):
        replace(PLAN, recipe=Recipe("step_law", sets=("warmup_tokens",))).runs()


def test_a_grid_takes_its_rates_from_a_recipe_in_place_of_a_sweep():
    families = (Family("a"), Family("wide", ("model.width=128",)), Family("own", (), (1e-3, 2e-3)))
    recipe = Recipe("width_power", CONSTANTS["width_power"])
    grid = Grid("g", "?", BASE, families, (), budgets=(1e11,), sizes=((128, 2),), recipe=recipe)
    rates = [(run.family, run.optimizer.learning_rate) for run in grid.runs()]
    expected = [("a", 1e-2 * 2**-0.5), ("wide", 1e-2), ("own", 1e-3), ("own", 2e-3)]
    assert rates == [(name, pytest.approx(rate)) for name, rate in expected]
    with pytest.raises(ConfigError, match="learning_rates = .*must be empty, since recipe 'width_power' sets them"):
        replace(grid, learning_rates=(1e-3,))
    with pytest.raises(ConfigError, match="learning_rates = .*must not be empty"):
        replace(grid, recipe=Recipe())
    batch = replace(grid, recipe=Recipe("step_law", sets=("learning_rate", "batch_tokens")))
    assert batch.runs()[0].training.batch_size != BASE.training.batch_size
    with pytest.raises(ConfigError, match="has batch_tokens, which follows from the tokens of a budget"):
        replace(batch, budgets=(), sizes=())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (lambda: Recipe("steplaw"), "recipe.name = 'steplaw': must be one of .* Fix: write step_law"),
        (lambda: Recipe("width_power"), r'must be values of exponent .* recipe.constants=\[\["exponent", 1.0\]\]'),
        (lambda: Recipe("kaplan", (("exponent", 1.0),)), r"empty for 'kaplan'. Fix: write recipe.constants=\[\]"),
        (lambda: Recipe("fitted"), "with a scale among them. Fix: read them from a file of isoflop bowls"),
        (lambda: Recipe("kaplan", sets=()), "recipe.sets = .*must name one setting or more"),
        (lambda: replace(PLAN, recipe=Recipe("kaplan", sets=("beta2",))).runs(), "'kaplan' says nothing of it for"),
        (lambda: replace(PLAN, recipe=Recipe("mup_transfer")), "are scaled by .* 'standard' scales none"),
        (lambda: replace(PLAN, base=MUP, recipe=Recipe("step_law")), "use recipe mup_transfer, or the standard"),
        (lambda: override(PLAN, ["recipe.sets=momentum"]), "recipe.sets.*must be one of 'learning_rate'"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_refused_with_the_fix(recipe, message):
    with pytest.raises(ConfigError, match=message):
        recipe()


def test_a_plan_says_which_of_its_runs_lie_beyond_those_its_recipe_comes_from(tmp_path, capsys):
    """Porian's sweep has models of 2.5e7 to 1.1e8 params."""
    wide = replace(BASE, model=replace(BASE.model, width=1024, depth=8, mlp=MlpConfig(2816)))
    assert Recipe("porian").beyond([BASE, wide]) == (
        "recipe porian: 1 of 2 runs lie outside of those that it comes from (head_params 2.5e+07 to 1.1e+08)"
    )
    assert Recipe("porian").beyond([wide]) == Recipe().beyond([BASE]) == ""
    arguments = ["plan", str(EXPERIMENTS / "smoke.py"), "--set", "recipe.name=deepseek"]
    assert cli.main([*arguments, "--runs-dir", str(tmp_path)]) == 0
    assert "recipe deepseek: 6 of 6 runs lie outside" in capsys.readouterr().out
    assert cli.main([*arguments[:2], "--runs-dir", str(tmp_path)]) == 0
    assert "lie outside" not in capsys.readouterr().out


def test_a_plan_can_ask_for_whatever_a_recipe_says():
    assert get_args(Setting) == tuple(field.name for field in fields(Settings))


def test_recipes_can_be_named_on_the_command_line():
    assert override(PLAN, ["recipe.name=deepseek", "recipe.sets=learning_rate,batch_tokens"]).recipe == Recipe(
        "deepseek", sets=("learning_rate", "batch_tokens")
    )


def test_the_laws_of_a_sweep_are_values_of_the_plan(tmp_path):
    path = tmp_path / "bowls.json"
    constants = {"scale": 2.0, "params_exponent": -0.5, "tokens_exponent": 0.25}
    law = {"intervals": {name: {"value": value} for name, value in constants.items()}, "ranges": {"params": [1, 9]}}
    law["cells"] = [0]
    bowls = [{"cell": {"params": 16.0, "tokens": 81.0}}]
    path.write_text(json.dumps({"joint": {"laws": {"learning_rate": law}}, "bowls": bowls}))
    recipe = fitted_recipe(path)
    assert recipe(Scale.of_counts(16, 81)).learning_rate == pytest.approx(2.0 / 4 * 3)
    assert recipe(Scale.of_counts(16, 81)).batch_tokens is None
    for text in ("{}", "[1]", "no JSON", json.dumps({"joint": {"laws": {"learning_rate": law}}, "bowls": []})):
        path.write_text(text)
        with pytest.raises(ConfigError, match="holds no fitted laws of a sweep. Fix: write the file by isoflop bowls"):
            fitted_recipe(path)
    path.write_text(json.dumps({"joint": None, "bowls": bowls}))
    with pytest.raises(ConfigError, match="has no law of learning_rate, batch_tokens, weight_decay. Fix: see what"):
        fitted_recipe(path)
    law["intervals"]["experts_exponent"] = {"value": 1.0}
    path.write_text(json.dumps({"joint": {"laws": {"learning_rate": law}}, "bowls": bowls}))
    with pytest.raises(ConfigError, match="has learning_rate.experts_exponent, of no power law of params, tokens"):
        fitted_recipe(path)
    with pytest.raises(ConfigError, match="cannot be read .No such file or directory.. Fix: write the file by"):
        fitted_recipe(tmp_path / "none.json")


def test_a_recipe_is_part_of_what_a_plan_is_and_the_default_changes_no_name():
    plans = [PLAN, *(replace(PLAN, recipe=Recipe(name)) for name in ("step_law", "kaplan"))]
    plans += [replace(PLAN, recipe=Recipe("step_law", sets=("learning_rate", "beta2")))]
    plans += [replace(PLAN, recipe=Recipe("width_power", (("exponent", power),))) for power in (-1.0, -0.5)]
    assert len({fingerprint(plan) for plan in plans}) == len(plans)
    assert fingerprint(load(EXPERIMENTS / "smoke.py")) == "2231264a97fe"  # as before there were recipes


def test_the_demos_runs_keep_the_names_they_were_trained_under():
    runs = load(EXPERIMENTS / "isoflop_transformer.py").runs()
    assert [run_name(runs[0]), run_name(runs[-1])] == [
        "transformer-5e10-w16-d1-seed0-5f8ed4991098",
        "transformer-1.6e12-w80-d4-seed0-3bc898860188",
    ]
    assert {run.model.width: run.optimizer.learning_rate for run in runs}[16] == 6.5e-3 * (16 / 64) ** -1.0

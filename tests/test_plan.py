"""Plans: every run costs its budget, sizes keep their proportions, and impossible plans say why."""

from dataclasses import replace

import pytest

from research.config import (
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    H3Config,
    MambaConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RunConfig,
    Rwkv7Config,
    TrainingConfig,
    fingerprint,
)
from research.plan import IsoFlop, Recipe, Runs, run_cost, scaled
from research.presets import PRESETS, preset

BASE = RunConfig(
    model=ModelConfig(width=64, depth=4, attention=AttentionConfig(4, 2, 16), mlp=MlpConfig(168)),
    optimizer=AdamWConfig(learning_rate=1e-2),
    training=TrainingConfig(batch_size=8, sequence_length=64),
)
GRID = IsoFlop(
    "grid",
    "?",
    BASE,
    budgets=(4e11, 1e11),
    sizes=((32, 1), (32, 2), (64, 2), (64, 4), (96, 4)),
    tokens_per_param=(0.01, 1000.0),
    min_sizes=3,
    min_steps=20,
    seeds=(0, 1),
    recipe=Recipe("width_power", (("exponent", -0.5),)),
    held_out_factor=4.0,
)


def test_runs_cover_budgets_sizes_and_seeds_at_the_stated_cost():
    runs = GRID.runs()
    assert len(runs) == 2 * 5 * 2 and len({fingerprint(run) for run in runs}) == len(runs)
    assert {run.budget_flops for run in runs} == {1e11, 4e11} and {run.experiment for run in runs} == {"grid"}
    for run in runs:
        # steps are whole: at least 20 of them, so the cost is within half a step, 2.5 %, of the budget
        assert abs(run_cost(run).flops / run.budget_flops - 1) <= 0.5 / run.training.steps + 1e-12
    assert GRID.runs() == runs


def test_learning_rate_follows_the_width():
    rates = {run.model.width: run.optimizer.learning_rate for run in GRID.runs()}
    assert rates[64] == pytest.approx(1e-2) and rates[32] == pytest.approx(1e-2 * 2**0.5)


def test_scaling_keeps_proportions():
    model = scaled(BASE.model, 96, 6)
    assert (model.width, model.depth, model.mlp.hidden) == (96, 6, 256)
    assert (model.attention.heads, model.attention.kv_heads, model.attention.head_dim) == (6, 3, 16)
    assert scaled(BASE.model, 64, 4) == BASE.model


def test_held_out_run_is_the_nearest_size_at_the_multiple():
    runs = {(run.model.width, run.model.depth): run_cost(run).params for run in GRID.runs()}
    held_out = GRID.held_out_run(runs[64, 2] * 1.05)
    assert (held_out.model.width, held_out.model.depth) == (64, 2) and held_out.held_out
    assert held_out.budget_flops == GRID.held_out_flops == 1.6e12
    assert replace(GRID, held_out_factor=None).held_out_run(1e5) is None


def test_a_budget_with_too_few_sizes_says_which_ratios_there_are():
    with pytest.raises(ConfigError, match=r"at 1e\+11 FLOPs only \d of 5 sizes .*min_sizes = 5.*Fix: add sizes"):
        replace(GRID, min_sizes=5, tokens_per_param=(5.0, 50.0)).runs()


def test_a_budget_too_small_for_a_size_is_refused():
    with pytest.raises(ConfigError, match=r"budgets = 100000000000.0: is too small for size \d+x\d: \d+ steps"):
        replace(GRID, min_steps=100000).runs()


def test_a_plan_longer_than_the_corpus_says_how_many_epochs():
    with pytest.raises(ConfigError, match=r"epochs of the 16,000,000 in data.train_tokens"):
        replace(GRID, budgets=(1e14,), tokens_per_param=(0.1, 1e9)).runs()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budgets": ()}, "budgets"), ({"sizes": ()}, "sizes"), ({"seeds": ()}, "seeds"),
        ({"held_out_factor": 1.0}, "held_out_factor = 1.0"), ({"tokens_per_param": (9.0, 2.0)}, "tokens_per_param"),
    ],
)  # fmt: skip
def test_bad_plans_are_refused_when_made(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(GRID, **change)


def test_widths_must_be_whole_heads():
    with pytest.raises(
        ConfigError, match=r"sizes = \(40, 2\): .*heads = 4: times 5/8, .* Nearest widths that fit: 32, 64, 96\."
    ):
        replace(GRID, sizes=((40, 2),), min_sizes=1).runs()
    with pytest.raises(ConfigError, match=rf"Nearest widths that fit: {10**20}\."):  # none is near one so far off
        scaled(replace(GRID.base.model, width=10**20), 8, 2)


def test_a_plain_list_of_runs_carries_the_experiment_name():
    experiment = Runs("list", "?", (BASE,))
    assert [run.experiment for run in experiment.runs()] == ["list"] and experiment.held_out_flops is None


def test_experts_are_scaled_like_the_mlp():
    model = ModelConfig(
        width=64, pattern="attention:moe", attention=AttentionConfig(4, 4, 16), moe=MoeConfig(4, 2, 160)
    )
    assert scaled(model, 128, 2).moe == replace(model.moe, hidden=320)


@pytest.mark.parametrize("name", PRESETS)
def test_a_published_model_at_its_own_size_is_itself_and_a_smaller_one_of_its_family(name):
    model = PRESETS[name].model
    assert scaled(model, model.width, model.depth) == model
    width = model.width // 2
    grown = {"attention": ("heads", "kv_heads"), "latent_attention": ("heads",)}
    counts = [getattr(getattr(model, name), field) for name in model.sections for field in grown.get(name, ())]
    if any(count > 1 and count % 2 for count in counts):  # no half of them
        with pytest.raises(ConfigError, match="Nearest widths that fit"):
            scaled(model, width, model.depth)
        return
    small = scaled(model, width, model.depth)
    for section in model.unused:
        assert getattr(small, section) == getattr(model, section)
    for section in model.sections:
        theirs, ours = getattr(model, section), getattr(small, section)
        for field in ("heads", "kv_heads", "hidden", "kv_rank", "query_rank"):
            whole, part = vars(theirs).get(field), vars(ours).get(field)
            if whole is None or (field == "kv_heads" and whole == 1):
                assert part == whole
            else:  # heads exactly, the others to within half of what they are rounded to
                assert abs(part - whole / 2) <= {"hidden": 4, "heads": 0, "kv_heads": 0}.get(field, 0.5)


@pytest.mark.parametrize(
    ("model", "width", "expected"),
    [
        (preset("palm-540b").model, 384, {"heads": 1, "kv_heads": 1, "head_dim": 256}),
        (preset("qwen3-0.6b").model, 512, {"heads": 8, "kv_heads": 4, "head_dim": 128}),
        (preset("llama3-8b").model, 1024, {"heads": 8, "kv_heads": 2, "head_dim": 128}),
    ],
)  # fmt: skip
def test_heads_keep_their_share_of_the_width(model, width, expected):
    found = vars(scaled(model, width, model.depth).attention)
    assert {name: found[name] for name in expected} == expected


def test_only_what_the_pattern_names_is_scaled():
    model = ModelConfig(width=96, depth=2, pattern="mamba")  # no width of 64's heads, which it has none of
    assert scaled(model, 48, 4) == replace(model, width=48, depth=4)
    both = ModelConfig(width=64, depth=2, pattern="attention:mlp -> lstm", encoder_depth=4, source_length=8)
    grown = scaled(both, 128, 3)
    assert (grown.attention.heads, grown.mlp.hidden, grown.encoder_depth) == (8, 1376, 6)


def test_ranks_that_were_given_grow_with_the_width():
    assert scaled(ModelConfig(pattern="mamba", mamba=MambaConfig(dt_rank=5)), 512, 4).mamba.dt_rank == 10
    rwkv7 = Rwkv7Config(decay_rank=8)
    pattern = "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel"
    assert scaled(ModelConfig(pattern=pattern, rwkv7=rwkv7), 128, 4).rwkv7 == replace(rwkv7, decay_rank=4)


@pytest.mark.parametrize(
    ("model", "width", "near"),
    [
        (preset("gpt2-1.5b").model, 800, "704, 768, 832, 896"),  # 25 heads of 64
        (preset("mamba2-130m").model, 100, "64, 96, 128, 160"),  # heads of 64 of twice the width
        (ModelConfig(width=64, pattern="h3", h3=H3Config(head_dim=16)), 8, "16, 32"),
    ],
)
def test_a_width_that_cannot_keep_the_family_is_answered_with_the_nearest_that_can(model, width, near):
    with pytest.raises(ConfigError, match=rf"sizes = \({width}, {model.depth}\): .*Nearest widths that fit: {near}\."):
        scaled(model, width, model.depth)

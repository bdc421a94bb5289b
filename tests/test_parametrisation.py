"""Every parameter of every architecture has a role and the rule that is meant for it; at the base all are standard."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.config import (
    AdamWConfig,
    ConfigError,
    MambaConfig,
    ModelConfig,
    ParametrisationConfig,
    RunConfig,
    Rwkv7Config,
    fingerprint,
    run_label,
)
from research.models import language_model
from research.models.initialisers import NORMAL, zeros
from research.models.layers import is_boxed, parameter
from research.models.mixers import CHANNEL_MIXERS, SEQUENCE_MIXERS
from research.optim.optimizer import decayed, make_optimizer
from research.optim.parametrisation import ROLES, RULES, Role, Scaling
from research.plan import IsoFlop, Recipe
from tests.architectures import ARCHITECTURES, DEPTH, WIDTH

NAMES = get_args(get_type_hints(ParametrisationConfig)["name"])
LISTING = Path(__file__).parent / "parameters.txt"


def parametrised(model, name, base_width=WIDTH, base_depth=DEPTH, **fields):
    return replace(model, parametrisation=ParametrisationConfig(name, base_width, base_depth, **fields))


def boxes(model):
    leaves = jax.tree_util.tree_leaves_with_path(language_model.abstract(model), is_leaf=is_boxed)
    return {".".join(part.key for part in path): box for path, box in leaves}


def _start(init):
    return init.__name__ if hasattr(init, "__name__") else re.sub(r"<function (\w+) at 0x\w+>", r"\1", repr(init))


def listing():
    """A line a parameter: where, its axes, role, standard start, and its mup scaling at 4 times the base's width.

    One line for all layers in which it is the same.
    """
    lines = {}
    for name, model in ARCHITECTURES.items():
        wide = boxes(parametrised(model, "mup", WIDTH // 4))
        for path, box in boxes(model).items():
            scale = wide[path].scaling._replace(growth=1)  # of the fan-in: no number of the parameter's
            numbers = " ".join(f"{field}={value:g}" for field, value in scale._asdict().items() if value != 1)
            where = re.sub(r"(prefix|periods?\d*)\.layer\d+_", "", path)
            lines[f"{name} {where}: {' '.join(box.axes)} | {box.role} | {_start(box.init)} | {numbers}"] = None
    return "\n".join(lines) + "\n"


def test_every_parameter_has_the_role_the_start_and_the_rule_that_are_listed():
    """The starts are those from before there were parametrisations: they name runs. Look at each line that changes.

    To write the listing anew: python -c "from tests.test_parametrisation import *; LISTING.write_text(listing())"
    """
    assert listing() == LISTING.read_text()


def test_the_listing_knows_every_mixer():
    known = {mixer for model in ARCHITECTURES.values() for layer in model.layers for mixer in layer}
    assert known == SEQUENCE_MIXERS.keys() | CHANNEL_MIXERS.keys()


def test_every_role_has_a_row_in_every_table():
    assert set(ROLES) == set(get_args(Role)) and set(RULES) == set(NAMES)
    for name, rules in RULES.items():
        assert set(rules) == set(ROLES), name


@pytest.mark.parametrize(
    ("axes", "role"),
    [
        ("width routes", "hidden"),  # a router: its rate would be right, and its start too large
        ("width hidden", "narrow"),
        ("taps inner", "hidden"),  # taps do not grow with the width
        ("vocab width", "output"),
    ],
)
def test_a_role_whose_fans_a_parameter_does_not_have_is_refused(axes, role):
    class Part(nn.Module):
        @nn.compact
        def __call__(self):
            return parameter(self, "weight", (4, 4), axes, NORMAL, role)

    with pytest.raises(ConfigError, match=f"role of parameter weight = '{role}': is of a fan-in that grows"):
        Part().init(jax.random.key(0))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_at_the_base_every_parametrisation_is_the_standard_one(architecture):
    model = ARCHITECTURES[architecture]
    standard = boxes(model)
    for name in NAMES:
        same = boxes(parametrised(model, name))
        assert {path: box.init for path, box in same.items()} == {path: box.init for path, box in standard.items()}
        assert {box.scaling for box in same.values()} == {Scaling()}


def _maximal(role):
    """(size of the start, of a step) of a weight as it is used, beside the named scale: Yang 2022, Table 3."""
    facts = ROLES[role]
    if not facts.contracted:  # nothing is summed: of one size at every width, though an embedding's scale would fall
        return (0.5 if role == "embedding" else 0.0), 0.0
    return (0.0 if facts.widens or role == "normed" else -0.5), -1.0


def _with_rates_for_each_layer(role):
    """The same of Everett 2024's standard with full alignment: every matrix starts as 1 / sqrt(fan-in)."""
    start, step = _maximal(role)
    return max(start, 0.0), step


@pytest.mark.parametrize(
    ("name", "sizes", "gradient"),
    [
        ("mup", _maximal, -1.0),
        ("mean_field", _maximal, -1.0),
        ("completep", _maximal, -1.0),
        ("ntk", _with_rates_for_each_layer, -0.5),  # the head's start, of 1 / sqrt(width), is what comes back
    ],
)
def test_every_rule_is_its_model_up_to_a_factor_between_multiplier_start_and_rate(name, sizes, gradient):
    """Everett 2024, section 2: Adam's steps do not see a factor that a multiplier takes from start and rate.

    The gradient of a weight as it is used falls as its product's, if that has a channel for each of the width's.
    """
    for role, rule in RULES[name].items():
        assert (rule.multiplier + rule.init, rule.multiplier + rule.rate) == sizes(role), role
        of_width = role != "balance" and (ROLES[role].widens or not ROLES[role].contracted)
        assert rule.gradient == (gradient if of_width else 0.0), role


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_is_mups_under_mean_field_up_to_that_factor(architecture):
    """Of whatever rank, start and place: also no start that stays what it is has a multiplier, unless it is zero."""
    mup, mean_field = (
        boxes(parametrised(ARCHITECTURES[architecture], name, WIDTH // 4)) for name in ("mup", "mean_field")
    )
    moved = 0
    for path, box in mean_field.items():
        ours, theirs = box.scaling, mup[path].scaling
        assert ours.multiplier * ours.rate == pytest.approx(theirs.multiplier * theirs.rate), path
        assert ours.epsilon * theirs.multiplier == pytest.approx(theirs.epsilon * ours.multiplier), path
        assert ours.rate * ours.decay == theirs.rate * theirs.decay == 1, path
        size, other = (_size(one[path].init) * one[path].scaling.multiplier for one in (mean_field, mup))
        assert size == pytest.approx(other), path
        moved += ours.multiplier != theirs.multiplier
    assert moved > 0


def _size(init):
    """What a multiplier changes of a start: its scale, or whether it is zero at all."""
    scales = [getattr(init, name) for name in ("std", "bound", "gain") if hasattr(init, name)]
    return scales[0] if scales else float(init is not zeros)


def test_a_rank_grows_as_it_does_and_not_as_the_width():
    """RWKV-7's ranks are multiples of 32, those of its gate grow faster; the published start is by the fan-out."""
    assert Rwkv7Config().rank_ratios(1024, 64) == (2.0, 2.0, 1.0, 5.0)
    assert Rwkv7Config(decay_rank=48).rank_ratios(128, 64).decay == 2.0
    assert MambaConfig().rank_ratio(80, 32) == 2.5
    wide = boxes(parametrised(replace(ARCHITECTURES["rwkv7"], width=1024), "mup", 64))
    for name, rank in {"decay": 2.0, "rate": 2.0, "share": 1.0, "gate": 5.0}.items():
        up, down = (wide[f"period0.layer0_mixer.{name}_{part}"].scaling for part in ("up", "down"))
        assert (up.rate, up.init, up.epsilon) == pytest.approx((1 / rank, (16 / rank) ** 0.5, 1 / 16))
        assert (down.rate, down.epsilon) == pytest.approx((1 / 16, 1 / rank))


def _trained(model, optimizer, steps=4):
    """Losses of a few steps on one batch of random tokens."""
    tokens = jax.random.randint(jax.random.key(1), (2, 12), 0, 50)
    boxed = language_model.abstract(model)
    transformation = make_optimizer(optimizer, boxed, optimizer.numbers(100))

    def loss(params):
        logits_BLV = language_model.logits(model, params, tokens[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BLV, tokens[:, 1:]).mean()

    @jax.jit
    def step(params, moments):
        value, grads = jax.value_and_grad(loss)(params)
        updates, moments = transformation.update(grads, moments, params)
        return optax.apply_updates(params, updates), moments, value

    params = language_model.init(model, jax.random.key(0))
    moments, losses = transformation.init(params), []
    for _ in range(steps):
        params, moments, value = step(params, moments)
        losses.append(float(value))
    return losses


@pytest.mark.parametrize("architecture", ["moe", "gru"])
def test_mean_field_trains_as_mup_does(architecture):
    """Also with weight decay and an epsilon that matters; only clipping sees gradients of weights as stored.

    Required: 1e-4, float32's rounding over 4 steps (5e-6 is what it is); standard differs in the second digit.
    """
    optimizer = AdamWConfig(3e-3, clip_norm=None, epsilon=1e-4, weight_decay=1.0, warmup_fraction=0)
    losses = {
        name: _trained(parametrised(ARCHITECTURES[architecture], name, WIDTH // 4), optimizer)
        for name in ("mup", "mean_field", "standard")
    }
    np.testing.assert_allclose(losses["mean_field"], losses["mup"], rtol=1e-4)
    assert not np.allclose(losses["standard"], losses["mup"], rtol=1e-3)
    assert losses["mup"][-1] < losses["mup"][0]


@pytest.mark.parametrize("decay", ["independent", "coupled"])
def test_a_step_has_the_rate_decay_and_epsilon_of_each_parameter(decay):
    """Adam's first step in numpy: g / (|g| + epsilon) times the rate, and the decay times that or held."""
    model = parametrised(ARCHITECTURES["transformer"], "completep", WIDTH // 4, DEPTH // 2, decay=decay)
    config = AdamWConfig(0.1, schedule="constant", warmup_fraction=0, clip_norm=None, weight_decay=0.3, epsilon=1e-2)
    boxed = language_model.abstract(model)
    params = language_model.init(model, jax.random.key(0))
    grads = jax.tree.map(lambda p: 1e-2 * jnp.sin(7 * p + 1), params)
    optimizer = make_optimizer(config, boxed, config.numbers(10))
    updates, _ = optimizer.update(grads, optimizer.init(params), params)

    def check(path, box, update, grad, param, is_decayed):
        name = jax.tree_util.keystr(path)
        matrix, in_branch = box.role == "hidden", "layer" in name
        rate = 0.25 if matrix else 1.0
        epsilon = 1e-2 / 4 / (2 if in_branch else 1)  # gradients of the width, and of the depth in branches
        decayed_by = 0.3 * (1.0 if decay == "independent" else rate) if is_decayed else 0.0
        expected = -0.1 * (rate * grad / (np.abs(grad) + epsilon) + decayed_by * param)
        np.testing.assert_allclose(update, expected, rtol=1e-4, atol=1e-7, err_msg=name)

    jax.tree_util.tree_map_with_path(check, boxed, updates, grads, params, decayed(boxed), is_leaf=is_boxed)


def test_completep_multiplies_branches_and_starts_them_as_at_the_base_depth():
    deep = replace(ARCHITECTURES["mamba2"], depth=4 * DEPTH)
    starts = {path: box.init for path, box in boxes(parametrised(deep, "completep")).items() if ".layer0_" in path}
    at_base = boxes(ARCHITECTURES["mamba2"])
    for path, init in starts.items():
        assert _start(init) == _start(at_base[re.sub(r"period\d+", "period0", path)].init), path
    params = language_model.init(parametrised(deep, "completep"), jax.random.key(0))
    tokens = jnp.arange(8).reshape(1, 8)
    with_branches = language_model.logits(parametrised(deep, "completep"), params, tokens)
    # The last matrices divided by 4 say the same as branches multiplied by 1 / 4.
    shrunk = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf / 4 if path[-1].key in ("out", "down") else leaf, params
    )
    np.testing.assert_allclose(
        with_branches, language_model.logits(parametrised(deep, "mup"), shrunk, tokens), rtol=1e-4, atol=1e-5
    )


def test_attention_falls_as_one_over_head_dim_where_heads_grow():
    small = ARCHITECTURES["transformer"].attention
    assert ParametrisationConfig("mup", 64).score_ratio(64) == 1.0
    assert ParametrisationConfig("mup", 64, base_head_dim=small.head_dim).score_ratio(4 * small.head_dim) == 0.5
    assert ParametrisationConfig(base_head_dim=small.head_dim).score_ratio(4 * small.head_dim) == 1.0


def test_an_encoder_is_as_deep_relative_to_its_base_as_the_decoder():
    model = replace(ARCHITECTURES["encoder_decoder"], depth=8, encoder_depth=4)
    encoder = parametrised(model, "completep", base_depth=2).encoder
    assert encoder.depth == 4 and encoder.parametrisation.depth_ratio(encoder.depth) == 4


def test_a_parametrisation_is_part_of_a_runs_name_where_it_is_not_standard():
    base = RunConfig()
    named = RunConfig(model=ModelConfig(parametrisation=ParametrisationConfig("mup", 64)))
    assert run_label(base) == "transformer-w256-d4-seed0"
    assert run_label(named) == "transformer-w256-d4-mup-seed0"
    idle = RunConfig(model=ModelConfig(parametrisation=ParametrisationConfig(base_width=64, decay="coupled")))
    assert fingerprint(idle) == fingerprint(base) != fingerprint(named)
    deeper = RunConfig(model=ModelConfig(parametrisation=ParametrisationConfig("mup", 64, 2)))
    assert fingerprint(deeper) == fingerprint(named)  # depth is completep's alone


@pytest.mark.parametrize(("name", "missing"), [("mup", "base_width"), ("completep", "base_depth")])
def test_a_base_that_is_needed_must_be_named(name, missing):
    with pytest.raises(ConfigError, match=rf"model.parametrisation.{missing} = None: must be set for {name}.*Fix:"):
        ParametrisationConfig(name, base_width=None if missing == "base_width" else 64)


def test_a_plan_does_not_scale_rates_twice():
    model = ModelConfig(parametrisation=ParametrisationConfig("mup", 256))
    recipe = Recipe("width_power", (("exponent", -0.5),))
    with pytest.raises(ConfigError, match="recipe.name = 'width_power': .* not scaled by model.parametrisation, and"):
        IsoFlop("twice", "?", RunConfig(model=model), (1e12,), ((64, 2),), recipe=recipe)

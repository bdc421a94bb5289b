"""Mixture of experts: one function in three algorithms, routed as written out, balanced, causal, or else refused."""

import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.config import (
    AttentionConfig,
    ConfigError,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    RunConfig,
    TrainingConfig,
)
from research.models import language_model, mlp
from research.models.experts import moe, router
from research.models.layers import Shared, draw
from research.plan import model_cost
from research.training.routing import auxiliary_loss

MODEL = ModelConfig(width=12, depth=2, pattern="attention:moe", attention=AttentionConfig(2, 2, 6))
DEEPSEEK = MoeConfig(
    8, 3, 10, shared_experts=2, scores="sigmoid", gate_scale=2.5, groups=4, active_groups=2, bias_rate=1e-3
)
CASES = {
    "mixtral": MoeConfig(6, 2, 10),
    "olmoe": MoeConfig(6, 3, 10, renormalize=False),
    "deepseek": DEEPSEEK,
    "switch": MoeConfig(4, 1, 10, renormalize=False, capacity_factor=1.0),
    "half the slots": replace(DEEPSEEK, capacity_factor=0.5),
}
# float32 sums of a few dozen terms of order one, in another order
REORDERED = {"rtol": 2e-5, "atol": 2e-5}


def _params(model, seed=0):
    """Of one layer, with a bias that matters where there is one."""
    x_BLD = jnp.zeros((1, 1, model.width))
    boxed = jax.eval_shape(lambda: moe.Moe(model, 0).init(jax.random.key(0), x_BLD, None, Shared()))["params"]
    params = draw(boxed, jax.random.key(seed))
    if "bias" in params:
        params["bias"] = 0.2 * jax.random.normal(jax.random.key(seed + 1), params["bias"].shape)
    return params


def _input(model, batch=3, length=9, seed=3):
    return jax.random.normal(jax.random.key(seed), (batch, length, model.width))


@partial(jax.jit, static_argnums=0)
def _apply(model, params, x_BLD, mask_BL=None, state=None):
    """(y_BLD, RouterStatistics) of one layer."""
    (y_BLD, _, _), left = moe.Moe(model, 0).apply(
        {"params": params}, x_BLD, state, Shared(mask_BL=mask_BL), mutable=[router.ROUTING]
    )
    return y_BLD, left[router.ROUTING]["statistics"]


def _with(config, **fields):
    return replace(MODEL, moe=replace(config, **fields))


@pytest.mark.parametrize("case", CASES)
def test_algorithms_are_one_function(case):
    mask_BL = jnp.arange(9)[None, :] >= jnp.array([0, 0, 3])[:, None]

    def values(algorithm):
        model = _with(CASES[case], algorithm=algorithm)
        params, x_BLD = _params(model), _input(model)

        def loss(params, x_BLD):
            y_BLD, statistics = _apply(model, params, x_BLD, mask_BL)
            return jnp.sin(y_BLD).sum(), (y_BLD, statistics)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x_BLD)

    (_, (expected, statistics)), expected_gradients = values("dense")
    dropped = float(statistics.dropped_B1.sum())
    assert (dropped > 0) == (CASES[case].capacity_factor is not None)
    for algorithm in ("capacity", "ragged"):
        (_, (found, _)), found_gradients = values(algorithm)
        np.testing.assert_allclose(found, expected, **REORDERED)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **REORDERED), found_gradients, expected_gradients)


@pytest.mark.parametrize("case", CASES)
def test_the_layer_is_the_formula_written_out(case):
    """In numpy, a token at a time, in the order of positions: top-k, groups, gates, slots, experts."""
    model, cfg = _with(CASES[case]), CASES[case]
    params, x_BLD = _params(model), _input(model)
    y_BLD, statistics = _apply(model, params, x_BLD)
    p = {name: np.asarray(value, np.float64) for name, value in params.items()}
    slots = router.capacity(cfg, x_BLD.shape[1])
    expected, loads = np.zeros_like(x_BLD, np.float64), np.zeros((len(x_BLD), cfg.experts))
    for b, x_LD in enumerate(np.asarray(x_BLD, np.float64)):
        for t, x_D in enumerate(x_LD):
            logits = x_D @ p["router"]
            scores = 1 / (1 + np.exp(-logits)) if cfg.scores == "sigmoid" else np.exp(logits) / np.exp(logits).sum()
            wanted = scores + p.get("bias", 0.0)
            groups = wanted.reshape(cfg.groups, -1)
            worth = np.sort(groups, axis=1)[:, -2:].sum(axis=1)
            allowed = np.isin(np.arange(cfg.groups), np.argsort(-worth)[: cfg.active_groups])
            wanted = np.where(np.repeat(allowed, groups.shape[1]), wanted, -np.inf)
            chosen = np.argsort(-wanted)[: cfg.active]
            gates = scores[chosen] / (scores[chosen].sum() if cfg.renormalize else 1.0) * cfg.gate_scale
            for expert, gate in zip(chosen, gates):
                if loads[b, expert] < slots:
                    expected[b, t] += gate * _swiglu(x_D, *(p[name][expert] for name in ("gate", "up", "down")))
                loads[b, expert] += 1
            if cfg.shared_experts:
                expected[b, t] += _swiglu(x_D, p["shared_gate"], p["shared_up"], p["shared_down"])
    np.testing.assert_allclose(y_BLD, expected, **REORDERED)
    np.testing.assert_array_equal(statistics.load_BE, loads)
    assert statistics.dropped_B1.sum() == np.maximum(loads - slots, 0).sum()


def _swiglu(x_D, gate_DF, up_DF, down_FD):
    hidden = x_D @ gate_DF
    return (hidden / (1 + np.exp(-hidden)) * (x_D @ up_DF)) @ down_FD


def test_expert_choice_is_the_formula_written_out():
    cfg = MoeConfig(
        4, 2, 10, routing="expert_choice", future_leak_allowed=True, renormalize=False, algorithm="capacity",
        capacity_factor=1.0,
    )  # fmt: skip
    model = _with(cfg)
    params, x_BLD = _params(model), _input(model, length=8)
    y_BLD, statistics = _apply(model, params, x_BLD)
    expected = np.zeros(x_BLD.shape)
    for b, x_LD in enumerate(np.asarray(x_BLD, np.float64)):
        logits = x_LD @ np.asarray(params["router"], np.float64)
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for expert in range(4):
            for t in np.argsort(-scores[:, expert])[:4]:  # 2 * 8 / 4 tokens each
                weights = (np.asarray(params[name][expert], np.float64) for name in ("gate", "up", "down"))
                expected[b, t] += scores[t, expert] * _swiglu(x_LD[t], *weights)
    np.testing.assert_allclose(y_BLD, expected, **REORDERED)
    assert (statistics.load_BE == 4).all()  # perfect balance, whatever the scores
    changed, _ = _apply(model, params, x_BLD.at[:, -1].mul(5.0))
    assert not np.allclose(changed[:, :-1], y_BLD[:, :-1])  # which is why a causal language model refuses it


def test_one_expert_is_an_mlp():
    model = replace(MODEL, moe=MoeConfig(1, 1, 10, scores="softmax"), mlp=MlpConfig(10))
    params, x_BLD = _params(model), _input(model)
    plain = {name: params[name][0] for name in ("gate", "up", "down")}
    expected, _, _ = mlp.Mlp(model, 0).apply({"params": plain}, x_BLD, None, Shared())
    np.testing.assert_allclose(_apply(model, params, x_BLD)[0], expected, **REORDERED)


@pytest.mark.parametrize("algorithm", ["dense", "capacity", "ragged"])
def test_a_full_expert_drops_the_later_token(algorithm):
    """Routing stays causal where choices are dropped, and a dropped token's output is zero: the residual passes."""
    model = _with(CASES["switch"], algorithm=algorithm, capacity_factor=0.5)
    params, x_BLD = _params(model), _input(model, length=16)
    y_BLD, statistics = _apply(model, params, x_BLD)
    assert statistics.dropped_B1.sum() > 0
    assert (jnp.abs(y_BLD).max(axis=-1) == 0).sum() == statistics.dropped_B1.sum()
    changed, _ = _apply(model, params, x_BLD.at[:, 9:].mul(-3.0))
    np.testing.assert_array_equal(changed[:, :9], y_BLD[:, :9])
    assert not np.allclose(changed[:, 9:], y_BLD[:, 9:])


def test_sequences_are_routed_by_themselves_and_padding_takes_no_seat():
    model = _with(CASES["switch"], capacity_factor=1.0)
    params, x_BLD = _params(model), _input(model, length=8)
    y_BLD, _ = _apply(model, params, x_BLD)
    alone, _ = _apply(model, params, x_BLD[1:2])
    np.testing.assert_allclose(alone[0], y_BLD[1], **REORDERED)
    padding = jnp.broadcast_to(x_BLD[:, :1], x_BLD.shape)  # wants what the first token wants
    mask_BL = jnp.arange(16)[None, :].repeat(3, axis=0) >= 8
    half = _with(CASES["switch"], capacity_factor=0.5)  # of twice the length: as many slots
    padded, statistics = _apply(half, params, jnp.concatenate([padding, x_BLD], axis=1), mask_BL)
    np.testing.assert_allclose(padded[:, 8:], y_BLD, **REORDERED)
    assert statistics.tokens_B1.sum() == 24 and statistics.load_BE.sum() == 24


def test_decoding_drops_nothing():
    model = _with(CASES["switch"], capacity_factor=0.25)
    params, x_BLD = _params(model), _input(model)
    free, _ = _apply(_with(CASES["switch"], capacity_factor=None), params, x_BLD)
    decoded, statistics = _apply(model, params, x_BLD, state=moe.init_state(model, 3, 9))
    np.testing.assert_allclose(decoded, free, **REORDERED)
    assert statistics.dropped_B1.sum() == 0


def test_load_is_near_uniform_at_initialisation():
    model = ModelConfig(width=64, depth=4, pattern="attention:moe", moe=MoeConfig(8, 2, 32), scan_layers=True)
    params = language_model.init(model, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (16, 128), 0, model.vocab_size)
    _, _, routing = jax.jit(language_model.hidden, static_argnums=0)(model, params, tokens)
    load = np.asarray(routing["periods"]["layer0_channel"]["statistics"].load_BE.sum(axis=1))
    assert load.shape == (4, 8) and (load.sum(axis=1) == 16 * 128 * 2).all()
    share = load / load.sum(axis=1, keepdims=True)
    # 259 kinds of token share two of eight experts each: 11 % of noise in an expert's load before any layer mixes them.
    assert share.max() < 2 / 8 and share.min() > 0.25 / 8
    assert (-(share * np.log(share)).sum(axis=1) > 0.95 * np.log(8)).all()


@pytest.mark.parametrize("remat", ["none", "full"])
def test_routing_comes_out_of_scan_and_remat(remat):
    written = _with(MoeConfig(4, 2, 8))
    scanned = replace(written, scan_layers=True, remat=remat)
    params = language_model.init(written, jax.random.key(0))
    stacked = {key: value for key, value in params.items() if not key.startswith("period")}
    stacked["periods"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), params["period0"], params["period1"])
    tokens = jax.random.randint(jax.random.key(1), (2, 7), 0, 259)

    def loss(params, model):
        return auxiliary_loss(model.moe, language_model.hidden(model, params, tokens)[2])

    gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    expected, expected_gradient = gradient(params, written)
    found, found_gradient = gradient(stacked, scanned)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        found_gradient["periods"]["layer0_channel"]["router"][1],
        expected_gradient["period1"]["layer0_channel"]["router"],
        atol=1e-7,
    )


def test_finer_experts_cost_the_same():
    coarse, fine = _with(MoeConfig(8, 2, 64)), _with(MoeConfig(32, 8, 16))
    router_difference = MODEL.depth * MODEL.width * (32 - 8)
    costs = [model_cost(model, 16) for model in (coarse, fine)]
    assert costs[1].params - costs[0].params == router_difference
    assert costs[1].active_params - costs[0].active_params == router_difference
    assert costs[0].params - costs[0].active_params == MODEL.depth * 3 * MODEL.width * 64 * (8 - 2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25, math.pi, 100.0])
def test_capacity_lies_between_its_share_and_everything(factor):
    cfg = MoeConfig(8, 2, capacity_factor=factor)
    slots = router.capacity(cfg, 128)
    assert slots == min(128, math.ceil(factor * 32))


CHOICE = {"routing": "expert_choice", "algorithm": "capacity", "capacity_factor": 1.0, "renormalize": False}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"active": 9}, r"model.moe.active = 9: must be at most experts = 8"),
        ({"experts": 8, "groups": 3}, r"model.moe.groups = 3: must divide experts = 8"),
        ({"experts": 8, "groups": 8, "active_groups": 4}, r"model.moe.groups = 8: .*groups of at least 2"),
        ({"groups": 2, "active_groups": 3}, r"model.moe.active_groups = 3: must be at most groups = 2"),
        ({"groups": 4, "active_groups": 1, "active": 3}, r"hold the active = 3 experts in groups of 2"),
        ({"capacity_factor": 0.0}, r"model.moe.capacity_factor = 0.0: must be above zero"),
        ({"capacity_factor": -1.0}, r"model.moe.capacity_factor = -1.0: must be above zero"),
        ({"active": 1}, r"model.moe.renormalize = True: .*would learn nothing"),
        ({**CHOICE, "algorithm": "ragged"}, r"model.moe.algorithm = 'ragged': expert_choice fills the slots"),
        ({**CHOICE, "renormalize": True}, r"nothing to renormalize"),
    ],
)
def test_bad_configs_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message + ".*Fix: "):
        MoeConfig(**fields)


def test_a_causal_model_refuses_expert_choice_unless_it_says_so():
    with pytest.raises(ConfigError, match=r"model.moe.routing = 'expert_choice': .*later ones.*future_leak_allowed"):
        _with(MoeConfig(**CHOICE))
    allowed = _with(MoeConfig(**CHOICE, future_leak_allowed=True))
    with pytest.raises(ConfigError, match=r"cannot be decoded"):
        language_model.init_states(allowed, 1, 8)


def test_balance_over_the_batch_refuses_microbatches():
    model = ModelConfig(pattern="attention:moe")
    with pytest.raises(ConfigError, match=r"training.microbatches = 2: must be 1 where model.moe.balance_over"):
        RunConfig(model=model, training=TrainingConfig(microbatches=2))
    RunConfig(model=replace(model, moe=MoeConfig(balance_over="sequence")), training=TrainingConfig(microbatches=2))

"""Every optimizer: what it does to a matrix, what it keeps and multiplies, and that it trains on any mesh."""

import dataclasses
import math
from dataclasses import replace
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.config import (
    AdafactorConfig,
    AdamWConfig,
    AttentionConfig,
    ConfigError,
    DataConfig,
    LionConfig,
    MeshConfig,
    MlpConfig,
    ModelConfig,
    MoeConfig,
    MuonConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleFreeConfig,
    SgdConfig,
    SoapConfig,
    TrainingConfig,
    fingerprint,
    from_json,
    override,
    to_json,
)
from research.models import language_model
from research.models.layers import is_boxed
from research.optim.optimizer import make_optimizer
from research.plan import executed_cost, train_state_bytes, update_flops
from research.sharding import make_mesh
from research.training.objective import language_modelling
from research.training.step import make_program

OPTIMIZERS = {cls.name: cls for cls in get_args(OptimizerConfig)}
MODEL = ModelConfig(
    260,
    32,
    2,
    "attention:moe",
    attention=AttentionConfig(4, 2, 8),
    mlp=MlpConfig(64),
    moe=MoeConfig(4, 2, 64, algorithm="dense"),
    scan_layers=True,
)
# Of many kinds: the gradients of a few repeated tokens have few directions, and the bases of the rest are rounding's.
TOKENS = np.random.default_rng(0).integers(0, 260, (8, 17))
BATCH = {"inputs": TOKENS[:, :-1], "targets": TOKENS[:, 1:], "weights": np.ones((8, 16), np.float32)}


def _run(optimizer, **model):
    training = TrainingConfig(steps=20, batch_size=8, sequence_length=16)
    data = DataConfig(vocab_size=260)
    return RunConfig(model=replace(MODEL, **model), data=data, optimizer=optimizer, training=training)


def _small(name):
    """The optimizer with limits that a small model passes: Adafactor factors, SOAP renews its bases."""
    limits = {"adafactor": {"least_factored": 16}, "soap": {"every": 2}, "sgd": {"clip_norm": None}}
    return OPTIMIZERS[name](warmup_fraction=0.0, schedule="constant", **limits.get(name, {}))


def _losses(run, mesh, steps=4):
    devices = jax.devices()[: math.prod(dataclasses.astuple(mesh))]
    mesh = make_mesh(mesh, devices)
    with jax.set_mesh(mesh):
        program = make_program(run, mesh, language_modelling(run))
        state, batch, losses = program.init(), jax.device_put(BATCH, program.batch_sharding), []
        for _ in range(steps):
            state, metrics = program.train(state, batch, program.numbers)
            losses.append(float(metrics["loss_nats"]))
        sums = program.evaluate(program.evaluated(state), batch)
    return losses, state, jax.tree.map(float, sums)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_trains_keeps_what_it_says_and_multiplies_what_it_says(name):
    run = _run(_small(name))
    losses, state, _ = _losses(run, MeshConfig(data=1))
    assert losses[-1] < losses[0] - 1e-3 and np.isfinite(losses).all()
    arrays = [leaf for leaf in jax.tree.leaves(state.moments) if leaf.ndim]
    coefficients = 3 * 4 if name in ("muon", "muonh") else 0  # of Newton and Schulz, which optax keeps in its state
    expected = train_state_bytes(run) - 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert sum(leaf.nbytes for leaf in arrays) - coefficients == expected


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_multiplies_what_its_closed_form_says(name):
    """Products of the traced update, a conditional's (SOAP's new bases) taken at how often it is due."""
    config = _small(name)
    boxed = language_model.abstract(MODEL)
    params = language_model.unbox(boxed)
    optimizer = make_optimizer(config, boxed, config.numbers(10))
    jaxpr = jax.make_jaxpr(optimizer.update)(params, jax.eval_shape(optimizer.init, params), params)
    assert _products(jaxpr.jaxpr, 1 / getattr(config, "every", 1)) == pytest.approx(update_flops(_run(config)))


def _products(jaxpr, share):
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            size = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * size * math.prod(equation.outvars[0].aval.shape)
        branches = equation.params.get("branches", ())
        inner = [equation.params[key] for key in ("jaxpr", "call_jaxpr") if key in equation.params]
        total += sum(_products(getattr(one, "jaxpr", one), share) for one in inner) * equation.params.get("length", 1)
        total += share * sum(_products(one.jaxpr, share) for one in branches)
    return total


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_trains_to_the_same_losses_on_a_mesh(name):
    """Rounding differs, as gradients are summed in another order: 1e-6 a step.

    What SOAP makes of it is bounded here: its bases are of square gradients, since a side longer than the other has
    directions that rounding alone chooses; and its epsilon is of the size of a gradient, since without one the first
    step in a direction is 1 or -1 however near to zero its gradient is.
    """
    optimizer = replace(_small(name), largest=32, epsilon=1e-2) if name == "soap" else _small(name)
    run = _run(optimizer, attention=AttentionConfig(4, 4, 8))
    alone, _, evaluated = _losses(run, MeshConfig(data=1))
    split, state, same = _losses(run, MeshConfig(data=1, fsdp=2, tensor=2, expert=2))
    np.testing.assert_allclose(split, alone, rtol=1e-4 if name in ("soap", "muon", "muonh") else 2e-6)
    assert same == pytest.approx(evaluated, rel=1e-4)
    whole = [leaf for leaf in jax.tree.leaves(state.moments) if leaf.size >= 1024 and leaf.sharding.is_fully_replicated]
    assert not whole, [leaf.shape for leaf in whole]


def test_numbers_are_arguments_of_the_program_and_not_in_it():
    """Runs that differ in rate, decay, betas, warm-up or length share one program, and train as apart, to the bit."""
    first, mesh = _run(_small("adamw")), make_mesh(MeshConfig(data=1), jax.devices()[:1])
    other = replace(
        first,
        optimizer=replace(
            first.optimizer, learning_rate=1e-2, beta1=0.8, beta2=0.9, weight_decay=0.5, warmup_fraction=0.5
        ),
        training=replace(first.training, steps=10),
    )
    with jax.set_mesh(mesh):
        programs = [make_program(run, mesh, language_modelling(run)) for run in (first, other)]

        def loss(program, numbers):
            state = program.init()
            for _ in range(3):
                state, metrics = program.train(state, BATCH, numbers)
            return float(metrics["loss_nats"])

        own, borrowed = loss(programs[1], programs[1].numbers), loss(programs[0], programs[1].numbers)
        assert own == borrowed != loss(programs[0], programs[0].numbers)
    assert programs[0].train._cache_size() == 1


def _one_matrix(config, gradients, shape=(6, 4)):
    """The updates of one hidden matrix under a sequence of gradients, without decay and at the rate 1."""
    config = replace(
        config, learning_rate=1.0, weight_decay=0.0, clip_norm=None, warmup_fraction=0.0, schedule="constant"
    )
    boxed = language_model.abstract(replace(MODEL, pattern="attention:mlp", scan_layers=False))
    box = next(box for box in jax.tree.leaves(boxed, is_leaf=is_boxed) if box.matrix.into and len(box.axes) == 2)
    tree = {"w": box.replace(value=jax.ShapeDtypeStruct(shape, jnp.float32))}
    params = {"w": jnp.zeros(shape)}
    optimizer = make_optimizer(config, tree, config.numbers(len(gradients)))
    state, updates = optimizer.init(params), []
    for gradient in gradients:
        update, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, update)
        updates.append(np.asarray(update["w"]))
    return updates


def _gradients(steps, shape=(6, 4)):
    return np.random.default_rng(0).standard_normal((steps, *shape)).astype(np.float32)


def test_muon_moves_along_an_orthogonal_matrix_of_adams_size():
    (update,) = _one_matrix(MuonConfig(), _gradients(1))
    singular = np.linalg.svd(update, compute_uv=False) / (0.2 * math.sqrt(6))
    assert (singular > 0.65).all() and (singular < 1.25).all()  # as near to one as five of its iterations come
    u, _, v = np.linalg.svd(_gradients(1)[0], full_matrices=False)
    assert np.sum(-update * (u @ v)) / np.linalg.norm(update) / np.linalg.norm(u @ v) > 0.98


def test_muon_takes_each_expert_and_each_layer_by_itself():
    """A hundred times the gradient of one expert in one layer changes no update, but through the others' momentum."""
    boxed = language_model.abstract(MODEL)
    config = MuonConfig(clip_norm=None, weight_decay=0.0)
    optimizer = make_optimizer(config, boxed, config.numbers(10))
    params = language_model.init(MODEL, jax.random.key(0))
    grads = jax.tree.map(lambda p: jnp.cos(3 * p + jnp.arange(p.size).reshape(p.shape)), params)
    path, box = next(
        (path, box)
        for path, box in jax.tree_util.tree_leaves_with_path(boxed, is_leaf=is_boxed)
        if "experts" in box.axes and box.matrix.into
    )
    assert box.axes[:2] == ("layers", "experts") and box.matrix.stacked == (0, 1)
    louder = jax.tree_util.tree_map_with_path(lambda at, g: g.at[1, 2].multiply(100) if at == path else g, grads)
    plain, loud = (optimizer.update(g, optimizer.init(params), params)[0] for g in (grads, louder))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7), plain, loud)


def test_soap_is_the_published_algorithm():
    """Vyas 2024, algorithm 3, in numpy as the authors' code has it, for six steps with bases renewed every two."""
    beta1, beta2, epsilon, shape = 0.9, 0.8, 1e-8, (4, 4)
    updates = _one_matrix(SoapConfig(beta1=beta1, beta2=beta2, every=2), _gradients(6, shape), shape)
    left, right, mean, square = (np.zeros(shape) for _ in range(4))
    for count, (gradient, update) in enumerate(zip(_gradients(6, shape).astype(float), updates, strict=True)):
        left = beta2 * left + (1 - beta2) * gradient @ gradient.T
        right = beta2 * right + (1 - beta2) * gradient.T @ gradient
        if count == 0:
            rows, columns = np.linalg.eigh(left)[1], np.linalg.eigh(right)[1]
            np.testing.assert_array_equal(update, 0)
            continue
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * (rows.T @ gradient @ columns) ** 2
        step = (rows.T @ mean @ columns / (1 - beta1**count)) / (np.sqrt(square / (1 - beta2**count)) + epsilon)
        np.testing.assert_allclose(update, -rows @ step @ columns.T, rtol=2e-3, atol=2e-4)
        if count % 2 == 0:
            by_rows = np.argsort(-np.diag(rows.T @ left @ rows))
            by_columns = np.argsort(-np.diag(columns.T @ right @ columns))
            square = square[by_rows][:, by_columns]
            rows, columns = np.linalg.qr(left @ rows[:, by_rows])[0], np.linalg.qr(right @ columns[:, by_columns])[0]


def test_soap_turns_with_the_axes():
    """Its steps of a matrix seen in other orthogonal bases are the same steps seen in them; Adam's are not."""
    generator = np.random.default_rng(1)
    rows, columns = (np.linalg.qr(generator.standard_normal((size, size)))[0].astype(np.float32) for size in (4, 4))
    gradients = _gradients(5, (4, 4))
    turned = np.einsum("ij,sjk,kl->sil", rows, gradients, columns)
    for config, turns in ((SoapConfig(every=2), True), (AdamWConfig(), False)):
        plain, seen = _one_matrix(config, gradients, (4, 4)), _one_matrix(config, turned, (4, 4))
        found = [np.allclose(b, rows @ a @ columns, atol=2e-3) for a, b in zip(plain[1:], seen[1:], strict=True)]
        assert all(found) if turns else not any(found), config.name


def test_schedule_free_evaluates_the_mean_of_its_iterates():
    """Without Adam's scaling of a gradient that stays the same: equal steps, whose mean is half way of the last."""
    config = ScheduleFreeConfig(learning_rate=0.1, weight_decay=0.0, clip_norm=None, warmup_fraction=0.0)
    optimizer = make_optimizer(config, {"w": _vector()}, config.numbers(100))
    params = {"w": jnp.zeros(3)}
    state = optimizer.init(params)
    for _ in range(9):
        updates, state = optimizer.update({"w": jnp.ones(3)}, state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(optax.tree.get(state, "z")["w"], -0.9, rtol=1e-4)
    np.testing.assert_allclose(config.evaluated(state, params)["w"], -0.5, rtol=1e-4)
    np.testing.assert_allclose(params["w"], -0.9 * 0.5 - 0.1 * 0.9, rtol=1e-4)


def _vector():
    boxed = language_model.abstract(MODEL)
    box = next(box for box in jax.tree.leaves(boxed, is_leaf=is_boxed) if box.role == "vector")
    return box.replace(value=jax.ShapeDtypeStruct((3,), jnp.float32), axes=("width",))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_named_read_and_told_apart(name):
    plain = RunConfig()
    run = override(plain, [f"optimizer.name={name}", "optimizer.warmup_fraction=0.25"])
    assert type(run.optimizer) is OPTIMIZERS[name] and run.optimizer.warmup_fraction == 0.25
    assert from_json(RunConfig, to_json(run)) == run
    default = override(plain, [f"optimizer.name={name}"])
    assert (fingerprint(default) == fingerprint(plain)) == (name == "adamw")


def test_another_optimizer_keeps_what_was_set_and_takes_its_own_defaults():
    run = replace(RunConfig(), optimizer=AdamWConfig(6.5e-3, schedule="wsd"))
    lion = override(run, ["optimizer.beta2=0.98", "optimizer.name=lion"]).optimizer
    assert lion == LionConfig(learning_rate=6.5e-3, schedule="wsd", beta2=0.98)
    assert override(RunConfig(), ["optimizer.name=lion"]).optimizer == LionConfig()
    with pytest.raises(ConfigError, match="optimizer.name = 'lio': must be one of 'adamw', .*Fix: write lion"):
        override(run, ["optimizer.name=lio"])
    with pytest.raises(ConfigError, match="optimizer.beta1: unknown field 'beta1'"):
        override(run, ["optimizer.name=sgd", "optimizer.beta1=0.5"])
    with pytest.raises(ConfigError, match="optimizer.schedule = 'wsd': must be one of 'constant'"):
        override(run, ["optimizer.name=schedule_free"])


def test_adafactor_clips_the_root_mean_square_of_an_update():
    quiet = _gradients(1)
    (first,) = _one_matrix(AdafactorConfig(least_factored=2, update_clip=0.5), quiet)
    assert np.sqrt(np.mean(first**2)) == pytest.approx(0.5, rel=1e-4)


def test_sgd_and_lion_are_their_formulas():
    gradients = _gradients(3)
    momentum, steps = np.zeros((6, 4)), _one_matrix(SgdConfig(momentum=0.7), gradients)
    for gradient, step in zip(gradients, steps, strict=True):
        momentum = 0.7 * momentum + gradient
        np.testing.assert_allclose(step, -momentum, rtol=1e-5, atol=1e-6)
    mean = np.zeros((6, 4))
    for gradient, step in zip(gradients, _one_matrix(LionConfig(beta1=0.9, beta2=0.5), gradients), strict=True):
        np.testing.assert_array_equal(step, -np.sign(0.9 * mean + 0.1 * gradient))
        mean = 0.5 * mean + 0.5 * gradient


def test_products_of_the_update_are_executed_flops():
    plain, muon = _run(AdamWConfig()), _run(MuonConfig())
    difference = executed_cost(muon, "cpu").executed_flops - executed_cost(plain, "cpu").executed_flops
    assert difference == 20 * update_flops(muon) > 0 == update_flops(plain)

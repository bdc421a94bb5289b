"""The same run on any mesh of eight virtual devices: same start, same losses, nothing resharded behind our back."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import (
    ConfigError,
    EvaluationConfig,
    Mamba2Config,
    MambaConfig,
    MeshConfig,
    ModelConfig,
    MoeConfig,
    Rwkv7Config,
    TaskConfig,
)
from research.data.synthetic import task_examples
from research.models import language_model
from research.models.initialisers import Normal, Uniform
from research.models.layers import STACKED_AXIS, Parameter, draw
from research.per_device import on_each_device, whole
from research.sharding import RULES, make_mesh, parameter_shardings, partition_spec
from research.training.feed import global_batch
from research.training.hlo_cost import hlo_cost
from research.training.objective import language_modelling
from research.training.step import gradients, make_program

# Equality to the last bit is a property of programs as they are compiled for users: not of make test's quick ones.
pytestmark = pytest.mark.slow

MESHES = {
    "1": MeshConfig(data=1),
    "data8": MeshConfig(data=8),
    "fsdp8": MeshConfig(data=1, fsdp=8),
    "2x2x2": MeshConfig(data=2, fsdp=2, tensor=2),
    "sequence2": MeshConfig(data=2, fsdp=1, tensor=2, sequence=2),
}
STEPS = 20


def _losses(mesh_config, config):
    devices = jax.devices()[:1] if mesh_config == MESHES["1"] else None
    mesh = make_mesh(mesh_config, devices)
    examples = synthetic_examples(config)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, language_modelling(config))
        state = program.init()
        start = jax.device_get(state.params)
        losses = []
        for step in range(STEPS):
            batch = global_batch(config, examples, step, program.batch_sharding)
            state, measured = program.train(state, batch, program.numbers)
            losses.append(float(measured["loss_nats"]))
    return start, np.array(losses)


@pytest.fixture(scope="module")
def config():
    return tiny_run(steps=STEPS)


@pytest.fixture(scope="module")
def single(config):
    return _losses(MESHES["1"], config)


@pytest.mark.parametrize("mesh", [name for name in MESHES if name != "1"])
def test_losses_agree_on_every_mesh(mesh, config, single, capfd):
    start, losses = _losses(MESHES[mesh], config)
    jax.tree.map(np.testing.assert_array_equal, start, single[0])  # bit-equal: threefry is partitionable
    # The required 1e-6 relative after 20 steps; float32 sums in another order differ by a few 1e-7.
    np.testing.assert_allclose(losses, single[1], rtol=1e-6)
    assert losses[-1] < losses[0] - 0.3
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


@pytest.mark.parametrize("shape", [(4, 16, 12), (14, 30, 22), (512, 6, 2)])
@pytest.mark.parametrize("leading", ["experts", STACKED_AXIS])
@pytest.mark.parametrize(("init", "std"), [(Normal(0.3), 0.3), (Uniform(1e-4), 1e-4 / 3**0.5)])
def test_draws_do_not_depend_on_the_mesh(shape, leading, init, std):
    """Bit for bit, also where a device's part is no whole number of vectors long."""
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, expert=2))
    value = jax.ShapeDtypeStruct(shape, jnp.float32)
    boxed = {"up": Parameter(value, (leading, "expert_width", "hidden"), "hidden", init, layer_step=1)}
    whole = draw(boxed, jax.random.key(3))
    split = draw(boxed, jax.random.key(3), parameter_shardings(boxed, mesh))
    assert not split["up"].sharding.is_fully_replicated
    np.testing.assert_array_equal(split["up"], whole["up"])
    assert float(jnp.std(whole["up"])) == pytest.approx(std, rel=0.15)


RECURRENCES = {
    "selective": {
        "pattern": "mamba, mamba2:mlp",
        "mamba": MambaConfig(4, chunk=4),
        "mamba2": Mamba2Config(4, head_dim=8, groups=2, chunk=4),
    },
    "gated": {"pattern": "lstm:mlp, gru"},
    "rwkv4": {"pattern": "rwkv4_time:rwkv4_channel"},
    "rwkv7": {
        "pattern": "rwkv7_first:rwkv7_channel | rwkv7_time:rwkv7_channel",
        "rwkv7": Rwkv7Config(4, 2, 4, 4, 4, 4, chunk=4),
    },
}


@pytest.mark.parametrize("name", RECURRENCES)
def test_recurrences_agree_on_every_mesh(name, config, capfd):
    config = replace(config, model=replace(config.model, **RECURRENCES[name]))
    single_start, single = _losses(MESHES["1"], config)
    for mesh in ("2x2x2", "sequence2"):
        start, losses = _losses(MESHES[mesh], config)
        jax.tree.map(np.testing.assert_array_equal, start, single_start)
        np.testing.assert_allclose(losses, single, rtol=1e-6)  # as above
    assert "Involuntary full rematerialization" not in capfd.readouterr().err


def _gradients(mesh_config, config):
    """Gradients at the start, by the leaf's name, on one batch of text or of a task."""
    mesh = make_mesh(mesh_config, jax.devices()[:1] if mesh_config == MESHES["1"] else None)
    objective = language_modelling(config)
    examples = synthetic_examples(config) if config.task is None else task_examples(config)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, objective)
        batch = global_batch(config, examples, 0, program.batch_sharding)
        params = program.init().params
        found = jax.jit(lambda p, b: gradients(objective, config.training, p, b)[0])(params, batch)
        return {jax.tree_util.keystr(at): leaf for at, leaf in jax.tree.leaves_with_path(jax.device_get(found))}


@pytest.mark.parametrize(
    ("pattern", "microbatches"),
    [("attention:mlp", 1), ("attention:mlp", 2), ("lstm -> lstm_additive", 1), ("gru -> gru_multiplicative", 2)],
)
def test_gradients_agree_at_the_start(pattern, microbatches):
    """Equal losses prove little: XLA once summed the gradients of a loop wrongly on 2x2x2, by up to a tenth."""
    config = tiny_run(batch_size=8 * microbatches, microbatches=microbatches)
    if "->" in pattern:
        task = TaskConfig("copy", lengths=(2, 7), evaluated=(2, 7), symbols=29)
        model = ModelConfig(vocab_size=32, width=16, depth=2, pattern=pattern, source_length=7)
        training = replace(config.training, sequence_length=task.sequence_length(encoder_decoder=True))
        evaluation = EvaluationConfig(tokens=64, batch_size=8)
        config = replace(config, task=task, model=model, data=None, training=training, evaluation=evaluation)
    single = _gradients(MESHES["1"], config)
    for mesh in ("2x2x2", "fsdp8"):
        for name, gradient in _gradients(MESHES[mesh], config).items():
            scale = np.max(np.abs(single[name]))
            np.testing.assert_allclose(gradient, single[name], rtol=0, atol=1e-5 * scale, err_msg=f"{name} on {mesh}")


@pytest.mark.parametrize("algorithm", ["dense", "capacity", "ragged"])
def test_experts_agree_on_their_own_mesh_axis(algorithm, capfd):
    """Choices are dropped and the bias moves: the same ones on a mesh of data, tensor and expert as on one device."""
    base = tiny_run(steps=STEPS)
    moe = MoeConfig(4, 2, 12, shared_experts=1, bias_rate=1e-3, capacity_factor=1.0, algorithm=algorithm)
    config = replace(base, model=replace(base.model, pattern="attention:moe", moe=moe))
    start, losses = _losses(MeshConfig(data=2, tensor=2, expert=2), config)
    expected_start, expected = _losses(MESHES["1"], config)
    jax.tree.map(np.testing.assert_array_equal, start, expected_start)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert losses[-1] < losses[0] - 0.3
    assert "Involuntary full rematerialization" not in capfd.readouterr().err
    mesh = make_mesh(MeshConfig(data=2, tensor=2, expert=2))
    shardings = parameter_shardings(language_model.abstract(config.model), mesh)
    up = shardings["period0"]["layer0_channel"]["up"]
    assert up.spec == PartitionSpec("expert", "fsdp", "tensor")


def test_parameters_are_split_as_the_rules_say(config):
    mesh = make_mesh(MESHES["2x2x2"])
    boxed = language_model.abstract(config.model)
    shardings = parameter_shardings(boxed, mesh)
    width = ("fsdp", "expert")
    assert shardings["period0"]["layer0_mixer"]["query"].spec == PartitionSpec(width, "tensor", None)
    assert shardings["period0"]["layer0_channel"]["down"].spec == PartitionSpec("tensor", width)
    with jax.set_mesh(mesh):
        state = make_program(config, mesh, language_modelling(config)).init()
    moments = [leaf for leaf in jax.tree.leaves(state.moments) if leaf.shape == (16, 2, 8)]
    assert len(moments) == 2 * 6  # both moments of query, key and value in two layers
    assert all(leaf.sharding.spec == PartitionSpec(width, "tensor", None) for leaf in moments)


def test_conflicting_rules_are_an_error():
    rules = {**RULES, "hidden": ("fsdp",)}
    with pytest.raises(ConfigError, match="'width' and 'hidden' are both split over mesh axis 'fsdp'"):
        partition_spec(("width", "hidden"), rules)
    with pytest.raises(ConfigError, match="logical axis 'wdth' has no rule"):
        partition_spec(("wdth",))


def test_dimensions_must_divide():
    box = Parameter(jax.ShapeDtypeStruct((6, 4), jnp.float32), ("width", "hidden"), "hidden", Normal(1.0))
    with pytest.raises(ConfigError, match=r"'width' of 6 must divide over the 4 devices"):
        parameter_shardings({"up": box}, make_mesh(MeshConfig(data=2, fsdp=4)))


@pytest.mark.parametrize(
    ("mesh", "training", "message"),
    [
        (
            MeshConfig(data=4, expert=2),
            {"batch_size": 12},
            "batch_size / microbatches = 12: must divide over the 8 dev",
        ),
        (MeshConfig(data=8), {"microbatches": 2}, "batch_size / microbatches = 4: must divide over the 8 devices"),
        (
            MeshConfig(data=2, sequence=4),
            {"sequence_length": 18},
            "sequence_length = 18: must divide over the 4 devices",
        ),
    ],
)
def test_batches_must_divide(mesh, training, message):
    config, mesh = tiny_run(**training), make_mesh(mesh)
    with pytest.raises(ConfigError, match=message):
        make_program(config, mesh, language_modelling(config))


def test_heads_must_divide_over_the_axes_that_a_scan_spreads_them_over(config):
    model = replace(config.model, **{**RECURRENCES["rwkv7"], "rwkv7": Rwkv7Config(8, 2, 4, 4, 4, 4, chunk=4)})
    config, mesh = replace(config, model=model), make_mesh(MESHES["sequence2"])
    with (
        jax.set_mesh(mesh),
        pytest.raises(ConfigError, match="'spread' of 2 must divide over the 4 devices of mesh ax"),
    ):
        program = make_program(config, mesh, language_modelling(config))
        batch = global_batch(config, synthetic_examples(config), 0, program.batch_sharding)
        program.train(program.init(), batch, program.numbers)


def test_mesh_must_cover_the_devices():
    assert make_mesh(MeshConfig(data=-1, tensor=2)).shape["data"] == 4
    with pytest.raises(ConfigError, match="must multiply to the 8 devices"):
        make_mesh(MeshConfig(data=3))


def test_several_processes_read_the_same_batch_by_device(config, monkeypatch):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    examples = synthetic_examples(config)
    with jax.set_mesh(mesh):
        sharding = make_program(config, mesh, language_modelling(config)).batch_sharding
        alone = global_batch(config, examples, 3, sharding)
        monkeypatch.setattr(jax, "process_count", lambda: 2)  # all devices are in this one
        split = global_batch(config, examples, 3, sharding)
    for name in split:
        np.testing.assert_array_equal(split[name], alone[name])
        assert {shard.data.shape for shard in split[name].addressable_shards} == {(2, 16)}


def test_a_length_that_does_not_divide_is_refused_in_words():
    """Of arrays that devices hold split over the length, and are to have split over channels."""
    with (
        jax.set_mesh(make_mesh(MeshConfig(data=1, sequence=4), jax.devices()[:4])),
        pytest.raises(ConfigError, match="dimension 'length' of 1 must divide over the 4 devices of mesh ax"),
    ):
        on_each_device(jnp.exp, ("batch steps spread",), "batch steps spread")(jnp.zeros((2, 1, 8)))


def test_a_weight_is_gathered_in_one_step_and_its_gradient_scattered_in_one():
    axes = "width gates hidden"  # split on two dimensions, over three axes of the mesh
    x_BD, weight_DnP, to_product_BnP = (  # whole numbers, whose sums are exact
        jnp.arange(float(np.prod(shape))).reshape(shape) % 7 for shape in ((16, 8), (8, 3, 4), (16, 3, 4))
    )

    def product(weight_DnP, x_BD):
        return jnp.einsum("bd,dnp->bnp", x_BD, whole(weight_DnP, axes))

    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=2, expert=2))
    with jax.set_mesh(mesh):
        split = on_each_device(product, (axes, "rows"), "rows")

        def product_and_gradient(weight_DnP, x_BD):
            product_BnP, pull_back = jax.vjp(lambda weight_DnP: split(weight_DnP, x_BD), weight_DnP)
            return product_BnP, pull_back(to_product_BnP)[0]

        placements = tuple(NamedSharding(mesh, partition_spec(names.split())) for names in (axes, "rows"))
        given = jax.device_put((weight_DnP, x_BD), placements)
        program = jax.jit(product_and_gradient, out_shardings=placements[::-1]).lower(*given).compile()
        found = program(*given)
    np.testing.assert_array_equal(found[0], product(weight_DnP, x_BD))
    np.testing.assert_array_equal(found[1], jnp.einsum("bd,bnp->dnp", x_BD, to_product_BnP))
    assert hlo_cost(program.as_text()).collectives == {"all-gather": 1, "reduce-scatter": 1}

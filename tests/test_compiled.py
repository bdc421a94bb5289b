"""What is read from compiled programs equals closed forms, known sizes and XLA's own count of a single operation."""

import math
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from synthetic_tokens import tiny_run

from research.config import MeshConfig
from research.plan import executed_cost
from research.sharding import batch_sharding, constrain, make_mesh, partition_spec
from research.training.compiled import compiled
from research.training.hlo_cost import hlo_cost
from research.training.objective import language_modelling
from research.training.step import gradients, make_program

EIGHT = {"data": MeshConfig(data=8), "2x2x2": MeshConfig(data=2, fsdp=2, tensor=2)}


def _abstract_batch(config):
    shape = (config.training.batch_size, config.training.sequence_length)
    kinds = {"inputs": jnp.int32, "targets": jnp.int32, "weights": jnp.float32}
    return {name: jax.ShapeDtypeStruct(shape, kind) for name, kind in kinds.items()}


def _cost(function, *arguments):
    return compiled(jax.jit(function).lower(*arguments)).cost


def _step(config, mesh):
    """(arguments, the compiled training step)"""
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, language_modelling(config))
        arguments = (program.abstract_state, _abstract_batch(config), program.numbers)
        return arguments, compiled(program.train.lower(*arguments))


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("microbatches", [1, 2])
def test_flops_equal_the_closed_form(scan_layers, microbatches):
    """Forward and backward of a transformer, its layers written out or a loop of three, in a loop of microbatches."""
    config = tiny_run(steps=1, microbatches=microbatches)
    config = replace(config, model=replace(config.model, depth=3, scan_layers=scan_layers))
    objective = language_modelling(config)
    params = make_program(config, make_mesh(MeshConfig(data=1), jax.devices()[:1]), objective).abstract_state.params
    cost = _cost(lambda p, b: gradients(objective, config.training, p, b), params, _abstract_batch(config))
    assert cost.matmul_flops == executed_cost(config, "cpu").executed_flops
    assert (cost.collective_bytes, cost.unknown_loops, cost.unread) == ({}, (), {})


@pytest.mark.parametrize("mesh", EIGHT)
def test_a_device_executes_and_holds_its_part(mesh):
    config = tiny_run(steps=1)
    arguments, step = _step(config, make_mesh(EIGHT[mesh]))
    assert 8 * step.cost.matmul_flops == executed_cost(config, "cpu").executed_flops
    parts = jax.tree.map(lambda a, s: a.dtype.itemsize * math.prod(s.shard_shape(a.shape)), arguments[:2],
                         step.executable.input_shardings[0][:2])  # fmt: skip
    scalars = 4 * len(arguments[2])  # of the optimizer's numbers, those that the program reads
    assert 0 < step.arguments_bytes - sum(jax.tree.leaves(parts)) <= scalars
    assert step.peak_bytes > step.arguments_bytes


def test_data_parallelism_sums_every_gradient_once():
    arguments, step = _step(tiny_run(steps=1), make_mesh(EIGHT["data"]))
    gradient_bytes = sum(4 * leaf.size for leaf in jax.tree.leaves(arguments[0].params))
    # and the scalars: loss, nats, weight twice, correct, exact, rows; no Brier scores, which no one asks for
    assert gradient_bytes < step.cost.collective_bytes["all-reduce"] <= gradient_bytes + 8 * 4


def test_xlas_warning_is_counted():
    """Of a lookup in a table that is split over both its dimensions, which XLA gathers whole; `look_up` does not."""
    mesh = make_mesh(EIGHT["2x2x2"])
    assert _step(tiny_run(steps=1), mesh)[1].replications == 0

    def rows(table_VD, tokens_BL):
        return constrain(jnp.take(table_VD, tokens_BL, axis=0), "batch length activation")

    arguments = (
        jax.ShapeDtypeStruct((264, 16), jnp.float32, sharding=NamedSharding(mesh, partition_spec(("vocab", "width")))),
        jax.ShapeDtypeStruct((8, 16), jnp.int32, sharding=batch_sharding(mesh)),
    )
    with jax.set_mesh(mesh):
        assert compiled(jax.jit(rows).lower(*arguments)).replications > 0


def test_warnings_that_are_switched_off_are_not_counted_as_none(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    with pytest.raises(RuntimeError, match="hides the warnings to be counted. Fix: set it to 1"):
        compiled(jax.jit(lambda x: x).lower(1.0))


def _reduced(x):
    return jax.lax.psum(x, "data")


def _gathered(x):
    return jax.lax.all_gather(x, "data").sum(axis=0)


def _scattered(x):
    return jnp.tile(jax.lax.psum_scatter(x, "data", scatter_dimension=1, tiled=True), (1, 4))


def _exchanged(x):
    return jax.lax.all_to_all(x, "data", 0, 1, tiled=True).reshape(x.shape)


def _handed_on(x):
    return jax.lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)])


PART = 4 * 8 * 12  # bytes of each device's float32 part


@pytest.mark.parametrize(
    ("kind", "collective", "bytes_once"),
    [
        ("all-reduce", _reduced, PART),
        ("all-gather", _gathered, 4 * PART),
        ("reduce-scatter", _scattered, PART),
        ("all-to-all", _exchanged, PART),
        ("collective-permute", _handed_on, PART),
    ],
)
def test_collectives_are_counted_as_often_as_they_run(kind, collective, bytes_once):
    """Twice in each of five turns of a loop, all of them under one channel."""
    once = jax.jit(lambda x: collective(jnp.tanh(x)))

    def turns(x):
        return jax.lax.scan(lambda x, _: (once(once(x)), None), x, None, length=5)[0]

    mesh = make_mesh(MeshConfig(data=4), jax.devices()[:4])
    spec = PartitionSpec("data")
    mapped = jax.shard_map(turns, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    cost = _cost(mapped, jax.ShapeDtypeStruct((32, 12), jnp.float32))
    assert cost.collectives == {kind: 10}
    assert cost.collective_bytes == {kind: 10 * bytes_once}


def test_a_collective_of_one_device_sends_nothing():
    """Which some versions of XLA leave in the program."""

    def over(*axes):
        mesh, spec = make_mesh(MeshConfig(data=4), jax.devices()[:4]), PartitionSpec("data")
        return jax.shard_map(lambda x: jax.lax.psum(x, axes), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)

    x = jax.ShapeDtypeStruct((32, 12), jnp.float32)
    assert _cost(over("tensor", "fsdp"), x).collectives == {}
    assert _cost(over("tensor", "data"), x).collectives == {"all-reduce": 1}


@pytest.mark.parametrize(
    ("groups", "carried"),
    [
        ("{{0},{1}}", {}),
        ("{{0,1}}", {"all-reduce": 1}),
        ("[8,1]<=[8]", {}),
        ("[1,8]<=[8]", {"all-reduce": 1}),
        ("mesh['a'=1,'b'=8] {'a'}", {}),
        ("mesh['a'=1,'b'=8] {'a','b'}", {"all-reduce": 1}),
        ("mesh['a'=8] {'a':(4)2}", {"all-reduce": 1}),
    ],
)
def test_groups_of_devices_are_read_as_xla_writes_them(groups, carried):
    line = f"  ROOT %sum = f32[4]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add"
    text = "ENTRY %main (x: f32[4]) -> f32[4] {\n  %x = f32[4]{0} parameter(0)\n" + line
    assert hlo_cost(text).collectives == carried


def test_transcendental_functions_count_elements():
    def turns(x):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x) + jnp.exp(x), None), x, None, length=5)[0]

    assert _cost(turns, jax.ShapeDtypeStruct((8, 12), jnp.float32)).transcendentals == 5 * 2 * 8 * 12


def test_transforms_count_as_fftws_benchmarks_do():
    real = jax.ShapeDtypeStruct((3, 4, 64), jnp.float32)
    once = 12 * 2.5 * 64 * 6
    assert _cost(lambda x: jnp.fft.rfft(x), real).fft_flops == once
    assert _cost(lambda x: jnp.fft.irfft(jnp.fft.rfft(x) ** 2), real).fft_flops == 2 * once
    assert _cost(lambda x: jnp.fft.fft(x), jax.ShapeDtypeStruct((3, 4, 64), jnp.complex64)).fft_flops == 2 * once


def test_a_loop_of_unknown_length_is_named():
    square = jax.ShapeDtypeStruct((16, 16), jnp.float32)

    def until_small(body):
        return lambda a: jax.lax.while_loop(lambda a: jnp.sum(a) > 1, body, a)

    cost = _cost(until_small(lambda a: a @ a), square)
    assert cost.matmul_flops == 2 * 16**3
    assert len(cost.unknown_loops) == 1
    assert _cost(until_small(lambda a: a / 2), square).unknown_loops == ()


def test_the_dearest_branch_counts():
    square = jax.ShapeDtypeStruct((16, 16), jnp.float32)
    branches = [lambda a: a, lambda a: a @ a @ a, lambda a: a @ a]
    cost = _cost(lambda i, a: jax.lax.switch(i, branches, a), jax.ShapeDtypeStruct((), jnp.int32), square)
    assert cost.matmul_flops == 2 * 2 * 16**3


CONVOLUTIONS = [
    {"window_strides": (1, 1), "padding": ((0, 0), (0, 0))},
    {"window_strides": (2, 1), "padding": ((1, 1), (2, 0))},
    {"window_strides": (3, 1), "padding": ((1, 2), (0, 1)), "lhs_dilation": (4, 2)},
    {"window_strides": (1, 2), "padding": ((2, 2), (3, 3)), "rhs_dilation": (2, 3)},
    {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "feature_group_count": 2},
    {"window_strides": (1, 1), "padding": ((1, 1), (1, 1)), "batch_group_count": 2},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_convolutions_are_counted_as_by_xla(settings):
    image = jax.ShapeDtypeStruct((4, 6, 9, 11), jnp.float32)
    kernel = jax.ShapeDtypeStruct((8, 6 // settings.get("feature_group_count", 1), 3, 2), jnp.float32)
    lowered = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, **settings)).lower(image, kernel)
    text = lowered.compile().as_text()
    assert " convolution(" in text
    assert hlo_cost(text).matmul_flops == lowered.cost_analysis()["flops"]


# As libtpu writes: a loop from constants, one all-gather that is spread over two fused steps, a batched product (4 x 2
# times 16 x 8 x 16) as a dilated convolution, a permutation that is started and done, and two sums combined.
TPU_TEXT = (Path(__file__).parent / "oracles" / "tpu_step.hlo.txt").read_text()


def test_what_a_tpus_compiler_writes_differently():
    cost = hlo_cost(TPU_TEXT)
    assert cost.collectives == {"all-gather": 30, "all-reduce": 1, "collective-permute": 1}
    assert cost.collective_bytes == {
        "all-gather": 30 * 2 * 16 * 8, "all-reduce": 2 * 4 * 4 * 2 * 16 * 8, "collective-permute": 2 * 4 * 8
    }  # fmt: skip
    assert cost.matmul_flops == 30 * 2 * (4 * 2) * 16 * 8 * 16
    assert (cost.unknown_loops, cost.unread) == ((), {"tpu_custom_call": 1})


def test_a_kernel_counts_what_it_states():
    """As Pallas has it written into the call's configuration, here of two products of 2 x 128 x 64 x 32."""
    target = 'custom_call_target="tpu_custom_call"'
    stated = ', backend_config={"custom_call_config":{"body":"TUw=","cost_estimate":{"flops":"1048576"}}}'
    cost = hlo_cost(TPU_TEXT.replace(target, target + stated))
    assert cost.matmul_flops == hlo_cost(TPU_TEXT).matmul_flops + 2 * 2 * 128 * 64 * 32
    assert cost.unread == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tuple(%begin, %a.1", "tuple(%elsewhere, %a.1"),
        ("add(%copied, %by)", "multiply(%copied, %by)"),
        ("direction=LT", "direction=NE"),
    ],
)
def test_a_loop_that_does_not_count_between_constants_is_unknown(old, new):
    elsewhere = "  %elsewhere = s32[] get-tuple-element(%outside), index=0\n  %begin ="
    cost = hlo_cost(TPU_TEXT.replace("  %begin =", elsewhere).replace(old, new))
    assert cost.unknown_loops == ("loop",)
    assert cost.matmul_flops == 2 * (4 * 2) * 16 * 8 * 16


def test_a_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="must have a line that begins with ENTRY"):
        hlo_cost("HloModule nothing")


CHAINED = """
HloModule chained

%body (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[], f32[2]{0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[2]{0} get-tuple-element(%p), index=1
  %step = f32[8]{0} all-gather(%x), channel_id=1, dimensions={0}, frontend_attributes={chain_id="0"}
  %first = f32[8]{0} all-gather(%x), channel_id=1, dimensions={0}, frontend_attributes={chain_id="1"}
  %second = f32[8]{0} all-gather(%x), channel_id=1, dimensions={0}, frontend_attributes={chain_id="1"}
  ROOT %out = (s32[], f32[2]{0}) tuple(%i, %x)
}

%condition (q: (s32[], f32[2])) -> pred[] {
  %q = (s32[], f32[2]{0}) parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main (a: (s32[], f32[2])) -> (s32[], f32[2]) {
  %a = (s32[], f32[2]{0}) parameter(0)
  %b = f32[2]{0} get-tuple-element(%a), index=1
  %begin = f32[8]{0} all-gather(%b), channel_id=1, dimensions={0}, frontend_attributes={chain_id="0"}
  ROOT %loop = (s32[], f32[2]{0}) while(%a), condition=%condition, body=%body, BACKEND
}
""".replace("BACKEND", 'backend_config={"known_trip_count":{"n":"5"}}')


def test_a_collective_that_goes_on_through_a_loop_counts_where_it_begins():
    """As a TPU's compiler writes what it spreads over a loop's steps: chain 0 once, chain 1 at each of five trips."""
    cost = hlo_cost(CHAINED)
    assert cost.collectives == {"all-gather": 1 + 5} and cost.collective_bytes == {"all-gather": 6 * 32}
    assert cost.unknown_loops == ()

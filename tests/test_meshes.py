"""Architectures on meshes: the first step is one device's, each device does its share, or the mesh is refused.

tests/benchmarks/meshes.py prints the same cells.
"""

from dataclasses import replace

import jax
import pytest
from mesh_cells import ARCHITECTURES, MESHES, Cell, outcome, run_of
from mesh_traffic import least_bytes, traffic_bytes

from research.config import MeshConfig
from research.models import language_model

SPLIT_SOURCES = tuple(mesh for mesh, sizes in MESHES.items() if "sequence" in sizes)
REFUSED = {(architecture, mesh) for architecture in ("t5", "lstm_additive") for mesh in SPLIT_SOURCES}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_cell_works_or_is_refused_in_words(architecture, mesh):
    found = outcome(architecture, mesh)
    if (architecture, mesh) in REFUSED:
        assert isinstance(found, str)
        assert found.startswith("refused: model.source_length = 63: must divide over the")
        return
    assert isinstance(found, Cell), found
    faults = found.faults
    if architecture == "moe_ragged":  # how many rows its loops multiply depends on the data, and no program says it
        faults = [fault for fault in faults if "share" not in fault and "unknown length" not in fault]
    assert list(faults) == []


GOOD = Cell(loss=1e-7, gradient=1e-6, products=1.0, others=1.0, traffic=1.0, unknown_loops=0, replications=0)


def test_a_fault_of_each_kind_is_found():
    assert GOOD.faults == ()
    for worse in (
        {"loss": 2e-6}, {"loss": float("nan")}, {"gradient": 2e-5}, {"gradient": float("nan")}, {"products": 1.2},
        {"others": 1.3}, {"traffic": 1.6}, {"unknown_loops": 1}, {"replications": 1},
    ):  # fmt: skip
        assert len(replace(GOOD, **worse).faults) == 1, worse


def test_every_architecture_and_mesh_can_be_described():
    for architecture in ARCHITECTURES:
        assert run_of(architecture).training.batch_size % 8 == 0
    for mesh in MESHES.values():
        assert MeshConfig(data=mesh.get("data", 1), **{axis: size for axis, size in mesh.items() if axis != "data"})


def test_the_least_traffic_in_closed_form():
    """Of two layers of attention and a SwiGLU, for 16 sequences of 64 tokens of width 64, in bytes of float32."""
    run = run_of("transformer")
    width, tokens = run.model.width, run.training.batch_size * run.training.sequence_length
    params = sum(leaf.size for leaf in jax.tree.leaves(language_model.unbox(language_model.abstract(run.model))))
    table = run.model.vocab_size * width
    gains = (2 * run.model.depth + 1) * width
    summed, there_and_back = 2, 2
    assert least_bytes(run, {"data": 8}) == 4 * summed * params
    gathered_and_scattered = 2 * (params - table) + there_and_back * tokens / 8 * width
    assert least_bytes(run, {"fsdp": 8}) == 4 * gathered_and_scattered
    assert least_bytes(run, {"fsdp": 4, "data": 2}) == 4 * (gathered_and_scattered + summed * params / 4)
    mixers_and_ends = 2 * run.model.depth + 1
    assert least_bytes(run, {"tensor": 4}) == 4 * summed * there_and_back * mixers_and_ends * tokens * width
    keys_and_values = 2 * run.model.attention.kv_heads * run.model.attention.head_dim
    crossing = there_and_back * run.model.depth * tokens * keys_and_values
    assert least_bytes(run, {"sequence": 4}) == 4 * (summed * params + crossing)
    assert least_bytes(run, {"sequence": 2, "tensor": 2}) == 4 * (
        summed * ((params - gains) / 2 + gains)
        + summed * there_and_back * mixers_and_ends * tokens / 2 * width
        + crossing / 2
    )


def test_traffic_counts_a_sum_as_a_scatter_and_a_gather():
    assert traffic_bytes({"all-reduce": 3, "all-gather": 5, "reduce-scatter": 7, "all-to-all": 11}) == 29

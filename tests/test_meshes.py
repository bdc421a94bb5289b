"""Architectures on meshes: the first step is one device's, each device does its share, or the mesh is refused.

tests/benchmarks/meshes.py prints every architecture on every mesh; here is a part of it that meets each mechanism.
"""

from dataclasses import replace

import pytest
from mesh_cells import ARCHITECTURES, MESHES, Cell, outcome, run_of

from research.config import MeshConfig

WORKS = (
    ("transformer", "expert2"),
    ("transformer", "fsdp2 tensor2 sequence2"),
    ("transformer_scan_remat", "data2 fsdp2 tensor2"),
    ("moe_dense", "fsdp2 tensor2 expert2"),
    ("moe_capacity", "expert4"),
    ("moe_capacity", "fsdp2 tensor2 sequence2"),
    ("mamba", "fsdp2 tensor2 sequence2"),
    ("mamba2", "data2 fsdp2 tensor2"),
    ("rwkv4", "tensor4"),
    ("rwkv7", "sequence4"),
    ("s4d", "tensor4"),
    ("h3", "sequence4"),
    ("lstm", "tensor4"),
    ("lstm_additive", "data2 fsdp2 tensor2"),
    ("t5", "fsdp8"),
)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "mesh"), WORKS)
def test_cells_that_work(architecture, mesh):
    found = outcome(architecture, mesh)
    assert isinstance(found, Cell), found
    assert found.faults == ()


@pytest.mark.slow
def test_ragged_experts_are_right():
    """How many rows their loops multiply depends on the data, and no compiled program says it."""
    found = outcome("moe_ragged", "fsdp2 tensor2 expert2")
    assert isinstance(found, Cell), found
    assert [fault for fault in found.faults if "share" not in fault and "unknown length" not in fault] == []


def test_impossible_cells_are_refused_in_words():
    found = outcome("t5", "sequence2")
    assert isinstance(found, str)
    assert found.startswith("refused: model.source_length = 63: must divide over the 2 devices")


GOOD = Cell(loss=1e-7, gradient=1e-6, products=1.0, others=1.0, unknown_loops=0, collective_bytes={}, replications=0)


def test_a_fault_of_each_kind_is_found():
    assert GOOD.faults == ()
    for worse in ({"loss": 2e-6}, {"loss": float("nan")}, {"gradient": 2e-5}, {"gradient": float("nan")},
                  {"products": 1.2}, {"others": 1.3}, {"unknown_loops": 1}, {"replications": 1}):  # fmt: skip
        assert len(replace(GOOD, **worse).faults) == 1, worse


def test_every_architecture_and_mesh_can_be_described():
    for architecture in ARCHITECTURES:
        assert run_of(architecture).training.batch_size % 8 == 0
    for mesh in MESHES.values():
        assert MeshConfig(data=mesh.get("data", 1), **{axis: size for axis, size in mesh.items() if axis != "data"})

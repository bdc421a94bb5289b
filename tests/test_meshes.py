"""Architectures on meshes: the first step is one device's, and each device does its share, or the table says how much.

tests/benchmarks/meshes.py prints every architecture on every mesh; here is a part of it that meets each mechanism.
"""

from dataclasses import replace

import pytest
from mesh_cells import ARCHITECTURES, MESHES, MOST_GRADIENT, MOST_LOSS, Cell, outcome, run_of

from research.config import MeshConfig

WORKS = (
    ("transformer", "fsdp8"),
    ("transformer", "tensor4"),
    ("transformer", "sequence2"),
    ("transformer", "fsdp2 tensor2 sequence2"),
    ("transformer_scan_remat", "data2 fsdp2 tensor2"),
    ("mamba", "data2 fsdp2 tensor2"),
    ("moe_capacity", "fsdp8"),
    ("lstm_additive", "fsdp8"),
    ("t5", "fsdp8"),
)
# What a device does over its share, (matrix products, other work), where it is too much. Whoever makes one of these
# work moves its line up; nobody may raise a number.
REPEATS = {
    ("transformer", "expert2"): (2.0, 2.0),
    ("moe_capacity", "expert4"): (2.21, 2.84),
    ("moe_dense", "fsdp2 tensor2 expert2"): (1.31, 1.69),
    ("mamba", "sequence2"): (1.0, 1.89),
    ("mamba2", "tensor4"): (1.16, 1.17),
    ("rwkv4", "sequence4"): (1.0, 2.99),
    ("lstm", "tensor4"): (1.75, 1.0),
    ("lstm_additive", "data2 fsdp2 tensor2"): (1.37, 1.01),
}
ERRORS = {("t5", "sequence2"): "error: "}  # no words of ours yet: is to become "refused: "


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "mesh"), WORKS)
def test_cells_that_work(architecture, mesh):
    found = outcome(architecture, mesh)
    assert isinstance(found, Cell), found
    assert found.faults == ()


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "mesh"), REPEATS)
def test_cells_that_repeat_work_are_right(architecture, mesh):
    found = outcome(architecture, mesh)
    assert isinstance(found, Cell), found
    assert found.loss <= MOST_LOSS and found.gradient <= MOST_GRADIENT and found.replications == 0
    assert (found.products, found.others) == pytest.approx(REPEATS[architecture, mesh], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "mesh"), ERRORS)
def test_cells_that_are_impossible_say_so(architecture, mesh):
    found = outcome(architecture, mesh)
    assert isinstance(found, str) and found.startswith(ERRORS[architecture, mesh])


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

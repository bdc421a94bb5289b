"""The count of usable cores: affinity, and the quota of control groups in both versions' files."""

import os

import pytest

from analysis import cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Eight cores, of which this process may use all but the first; returns where the control groups are."""
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(1, 8)), raising=False)
    (tmp_path / "membership").write_text("0::/jobs/one\n")
    (tmp_path / "cgroup" / "jobs" / "one").mkdir(parents=True)
    return tmp_path / "cgroup"


def test_without_a_quota_the_affinity_counts(machine):
    (machine / "jobs" / "one" / "cpu.max").write_text("max 100000\n")
    assert cores.usable_cores() == tuple(range(1, 8))


@pytest.mark.parametrize(
    "inner, outer, expected",
    [("250000 100000", "max 100000", 3), ("max 100000", "200000 100000", 2), ("50000 100000", "max 100000", 1)],
)
def test_the_smallest_quota_of_the_groups_above_counts(machine, inner, outer, expected):
    (machine / "jobs" / "one" / "cpu.max").write_text(inner)
    (machine / "jobs" / "cpu.max").write_text(outer)
    usable = cores.usable_cores()
    assert len(usable) == len(set(usable)) == expected and set(usable) <= set(range(1, 8))
    assert cores.usable_cores() == usable  # the same ones at every call


def test_a_quota_larger_than_the_affinity_changes_nothing(machine):
    (machine / "cpu.max").write_text("1600000 100000")
    assert cores.usable_cores() == tuple(range(1, 8))


def test_containers_of_one_machine_get_different_cores(machine, monkeypatch):
    (machine / "cpu.max").write_text("100000 100000")
    chosen = set()
    for host in "abcdefghij":
        monkeypatch.setattr(cores.socket, "gethostname", lambda host=host: host)
        chosen.add(cores.usable_cores())
    assert len(chosen) > 1


def test_version_1_files(machine):
    (machine.parent / "membership").write_text("4:memory:/box\n2:cpuacct,cpu:/box\n")
    (machine / "cpu").mkdir()  # in a container the group is mounted as the root
    (machine / "cpu" / "cpu.cfs_quota_us").write_text("400000\n")
    (machine / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert len(cores.usable_cores()) == 4
    (machine / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert len(cores.usable_cores()) == 7


def test_where_there_are_no_control_groups(machine):
    (machine.parent / "membership").unlink()
    assert cores.usable_cores() == tuple(range(1, 8))

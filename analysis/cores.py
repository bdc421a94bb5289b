"""The cores that this process may keep busy: the one count for thread pools and worker processes.

It stands in `analysis`, the half that is installed by itself, so that both halves count alike.
"""

import math
import os
import socket
import zlib
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores() -> tuple[int, ...]:
    """Indices of the cores this process may keep busy, at least one: its affinity, within its containers' CPU quota.

    A quota of 1.5 cores counts as 2, so that all of it can be used. Where the quota allows fewer cores than the
    affinity, they are neighbours from an offset that differs by host name, so that the containers of a machine do not
    all crowd on its first cores.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    quota = cpu_quota()
    number = len(cores) if quota is None else max(1, min(len(cores), math.ceil(quota)))
    if number == len(cores):
        return tuple(cores)
    first = zlib.crc32(socket.gethostname().encode()) % len(cores)
    return tuple(sorted((cores + cores)[first : first + number]))


def cpu_quota() -> float | None:
    """The smallest CPU quota, in cores, of this process's control groups (cgroup v1 or v2); None if none is set."""
    if not MEMBERSHIP.exists():  # not Linux
        return None
    quotas = []
    for line in MEMBERSHIP.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS if not controllers else CGROUPS / "cpu"
        # A group's quota binds every group below it. In a container the path may be the host's, of which only the
        # root is mounted: what is not there is passed over.
        group = root / path.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent == root or root in parent.parents)):
            quotas += _quota(folder)
    return min(quotas, default=None)


def _quota(folder: Path) -> list[float]:
    """The quota written in one control group, in either version's files, or nothing."""
    if (folder / "cpu.max").is_file():
        quota, period = (folder / "cpu.max").read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    if (folder / "cpu.cfs_quota_us").is_file():
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return [] if quota < 0 else [quota / int((folder / "cpu.cfs_period_us").read_text())]
    return []

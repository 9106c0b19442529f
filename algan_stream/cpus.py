"""How many processors this process may really use: containers are often given fewer than the host has."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """Returns the processors that affinity and the cgroups' CPU quotas leave, at least 1."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in own_cgroups(cgroup) if (quota := _quota_cpus(folder))]
    return max(1, min([affinity, *quotas]))


def own_cgroups(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> list[Path]:
    """Folders of this process's cgroup (v2) and of those above it, up to `cgroup` itself.

    A container sees its own at the top. A service of systemd sees the whole tree, and its limits
    stand further down.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return [cgroup]
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    path = cgroup / own
    if ".." in path.parts:  # above what this process may see
        return [cgroup]
    return [folder for folder in (path, *path.parents) if folder.is_relative_to(cgroup)]


def _quota_cpus(cgroup: Path) -> int | None:
    """Quota of cgroup v2 (`cpu.max`) or v1, rounded up to whole processors; None without a limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroup / file).read_text() for file in files).split()
            if quota in ("max", "-1"):
                return None
            return max(1, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # not this version of cgroups, or nothing that we understand
    return None

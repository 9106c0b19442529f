"""Processors by affinity and by the container's quota."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from algan_stream.cpus import available_cpus, own_cgroups

_HERE = set(range(16))


@pytest.fixture(autouse=True)
def _sixteen_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: _HERE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("250000 100000\n", 3),
        ("10000 100000\n", 1),
        ("9900000 100000\n", 16),
        ("", 16),
        ("garbage", 16),
        ("a b", 16),
        ("100000 0", 16),
    ],
)
def test_cgroup_v2(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [
        ("-1", "100000", 16),
        ("150000", "100000", 2),
        ("50000", "100000", 1),
        ("x", "100000", 16),
        ("1", "0", 16),
    ],
)
def test_cgroup_v1(tmp_path: Path, quota: str, period: str, expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text(f"{period}\n")
    assert available_cpus(tmp_path) == expected


def test_no_cgroup(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 16


def test_affinity_is_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    (tmp_path / "cpu.max").write_text("800000 100000")
    assert available_cpus(tmp_path) == 2


def test_where_there_is_no_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("membership", "quotas", "expected"),
    [
        ("0::/system.slice/line@a.service", {"system.slice/line@a.service": "200000 100000"}, 2),
        ("0::/system.slice/line@a.service", {"system.slice": "300000 100000"}, 3),
        ("0::/a/b", {"a": "300000 100000", "a/b": "max 100000"}, 3),
        ("0::/a/b", {"c": "100000 100000"}, 16),
        ("0::/../other", {".": "100000 100000"}, 1),
        ("3:cpu:/x\n0::/a", {"a": "100000 100000"}, 1),
        ("", {".": "400000 100000"}, 4),
    ],
)
def test_a_service_of_systemd_has_its_quota_further_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, quotas: dict[str, str], expected: int
) -> None:
    own = tmp_path / "membership"
    own.write_text(membership + "\n")
    monkeypatch.setattr(own_cgroups, "__defaults__", (tmp_path, own))
    for folder, quota in quotas.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "cpu.max").write_text(quota)
    assert available_cpus(tmp_path) == expected

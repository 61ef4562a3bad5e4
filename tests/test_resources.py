"""How many processors and how much memory are used, in containers as their control groups limit them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.resources import group_folders, usable_memory, usable_processors


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def machine(root: Path, groups: str, **files: str) -> Path:
    """Write a machine with these control groups of the process, and files below ``/sys/fs/cgroup``."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("written", "count"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", 16), ("9900000 100000", 16)],
)
def test_the_quota_of_a_container_counts_rounded_up(tmp_path: Path, written: str, count: int) -> None:
    assert usable_processors(machine(tmp_path, "0::/\n", **{"cpu.max": f"{written}\n"})) == count


def test_the_least_quota_from_the_group_upwards_counts(tmp_path: Path) -> None:
    files = {"kubepods/cpu.max": "300000 100000", "kubepods/pod/cpu.max": "max 100000", "cpu.max": "1200000 100000"}
    assert usable_processors(machine(tmp_path, "0::/kubepods/pod\n", **files)) == 3


@pytest.mark.parametrize("group", ["/docker/0123", "/../../other", "/"])
def test_a_group_that_the_container_does_not_see_is_the_one_at_the_top(tmp_path: Path, group: str) -> None:
    assert usable_processors(machine(tmp_path, f"0::{group}\n", **{"cpu.max": "400000 100000"})) == 4


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_groups_of_version_1_are_read(tmp_path: Path, folder: str) -> None:
    files = {f"{folder}/cpu.cfs_quota_us": "250000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}
    groups = "5:cpuset:/\n4:cpu,cpuacct:/docker/0123\n1:name=systemd:/x\n0::/\n"
    assert usable_processors(machine(tmp_path, groups, **files)) == 3


def test_no_quota_of_version_1_leaves_all(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert usable_processors(machine(tmp_path, "1:cpu:/\n", **files)) == 16


def test_without_control_groups_it_is_what_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_processors(tmp_path) == 16
    assert usable_processors(machine(tmp_path, "nonsense\n0::/\n", **{"cpu.max": "a b c"})) == 16


GIB = 1 << 30


def with_memory(root: Path, groups: str, **files: str) -> Path:
    """Write a machine with 64 GiB of memory and these control groups of the process."""
    machine(root, groups, **files)
    (root / "proc" / "meminfo").write_text(f"MemFree: 1 kB\nMemTotal:       {64 << 20} kB\n")
    return root


@pytest.mark.parametrize(
    ("written", "size"), [(4 * GIB, 4 * GIB), ("max", 64 * GIB), (128 * GIB, 64 * GIB), (0, 64 * GIB)]
)
def test_the_memory_of_a_container_is_its_limit_where_that_is_less(tmp_path: Path, written: object, size: int) -> None:
    assert usable_memory(with_memory(tmp_path, "0::/\n", **{"memory.max": f"{written}\n"})) == size


def test_the_least_memory_from_the_group_upwards_counts(tmp_path: Path) -> None:
    files = {"pods/memory.max": f"{3 * GIB}", "pods/pod/memory.max": "max", "pods/pod/one/memory.max": f"{8 * GIB}"}
    assert usable_memory(with_memory(tmp_path, "0::/pods/pod/one\n", **files)) == 3 * GIB


@pytest.mark.parametrize("group", ["/docker/0123", "/"])
def test_the_memory_of_a_group_of_version_1_is_its_limit(tmp_path: Path, group: str) -> None:
    groups = f"9:memory:{group}\n4:cpu,cpuacct:{group}\n0::/\n"
    files = {"memory/memory.limit_in_bytes": f"{2 * GIB}\n", "cpu/memory.limit_in_bytes": "1"}
    assert usable_memory(with_memory(tmp_path, groups, **files)) == 2 * GIB


def test_no_limit_of_version_1_leaves_all_the_memory(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert usable_memory(with_memory(tmp_path, "9:memory:/\n", **files)) == 64 * GIB


def test_without_control_groups_the_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    assert usable_memory(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_groups_of_a_process_are_given_from_its_own_upwards(tmp_path: Path) -> None:
    root = machine(tmp_path, "4:cpu,cpuacct:/a\n0::/b\n")
    found = [
        (version, str(folder.relative_to(root / "sys/fs/cgroup"))) for version, folder in group_folders("cpu", root)
    ]
    assert found == [
        (1, "cpu,cpuacct/a"), (1, "cpu,cpuacct"), (1, "cpu/a"), (1, "cpu"),
        (2, "b"), (2, "."), (2, "unified/b"), (2, "unified"),
    ]  # fmt: skip

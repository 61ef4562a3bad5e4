"""Lack of memory as the kernel counts it, as control groups limit it, and as programs say it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kubeyolo.config.schema import Config
from kubeyolo.memory import death_cause, is_lack_of_memory, killed_for_memory, memory_kills, memory_of
from kubeyolo.resources import memory_limit
from kubeyolo.training.memory_advice import memory_remedy


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


GROUPS = {2: "0::/pods/one\n", 1: "5:memory:/docker/01\n1:name=systemd:/x\n"}
MOUNT = {2: "sys/fs/cgroup/pods", 1: "sys/fs/cgroup/memory"}
COUNTER = {2: ("memory.events", "low 0\noom 9\noom_kill {}\n"), 1: ("memory.oom_control", "under_oom 0\noom_kill {}\n")}
LIMIT = {2: ("memory.max", "max\n"), 1: ("memory.limit_in_bytes", "9223372036854771712\n")}


@pytest.mark.parametrize("version", [1, 2])
def test_the_counter_of_the_control_group_goes_before_that_of_the_machine(tmp_path: Path, version: int) -> None:
    name, text = COUNTER[version]
    machine = {"proc/vmstat": "oom_kill 70\n", "proc/self/cgroup": GROUPS[version]}
    write(tmp_path, **machine, **{f"{MOUNT[version]}/{name}": text.format(3)})
    before = memory_kills(tmp_path)
    assert before == 3
    # Somebody else's.
    write(tmp_path, **{"proc/vmstat": "oom_kill 71\n"})
    assert killed_for_memory(before, tmp_path) == ""
    write(tmp_path, **{f"{MOUNT[version]}/{name}": text.format(5)})
    assert "has killed 2 processes here for lack of memory" in killed_for_memory(before, tmp_path)


def test_the_machine_counts_where_the_control_group_does_not(tmp_path: Path) -> None:
    assert memory_kills(tmp_path) == 0
    write(tmp_path, **{"proc/vmstat": "nr_free_pages 7\noom_kill 3\n"})
    before = memory_kills(tmp_path)
    assert killed_for_memory(before, tmp_path) == ""
    write(tmp_path, **{"proc/vmstat": "nr_free_pages 7\noom_kill 4\n"})
    assert "has killed 1 process here for lack of memory" in death_cause(-signal.SIGKILL, before, tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_limit_from_the_group_upwards_counts(tmp_path: Path, version: int) -> None:
    name, none = LIMIT[version]
    inner = GROUPS[version].splitlines()[0].rpartition("/")[2]
    top = MOUNT[version] if version == 2 else f"{MOUNT[version]}/docker"
    write(tmp_path, **{"proc/self/cgroup": GROUPS[version], f"{top}/{inner}/{name}": none})
    assert memory_limit(tmp_path) is None
    assert death_cause(-signal.SIGKILL, 0, tmp_path) == ", most likely for lack of memory"
    write(tmp_path, **{f"{top}/{name}": "2000000000\n"})
    assert memory_limit(tmp_path) == 2_000_000_000
    assert death_cause(-signal.SIGKILL, 0, tmp_path).endswith("the limit of the container or control group is 2.00 GB")


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("MemoryError", True),
        ("ArrayMemoryError: Unable to allocate 3.00 GiB for an array with shape (1, 2)", True),
        ("OSError: [Errno 12] Cannot allocate memory", True),
        ("OpenCV(4.10.0) error: (-4:Insufficient memory) Failed to allocate 99 bytes", True),
        ("RuntimeError: ) memory isn't enough and alloc failed, kernel name: Conv2D", True),
        ("RuntimeError: Allocate memory failed, alloc size 5000000", True),
        ("#umsg#Memory not enough:#umsg#Device(id:0)", True),
        ("the loss is not finite at step 3", False),
        ("allocated memory: 5 MB; the test failed", False),
        ("a worker of the loader ended (killed by SIGKILL), most likely for lack of memory: lower data.workers", False),
    ],
)
def test_a_lack_of_memory_is_known_by_its_words(text: str, lacks: bool) -> None:
    assert is_lack_of_memory(text) is lacks


def test_the_remedy_has_the_present_values_and_first_what_changes_no_weight() -> None:
    config = Config.model_validate({"train": {"processes": 2, "per_batch_size": 24}, "data": {"workers": 3}})
    remedy = memory_remedy(config, "detector")
    first, _, then = remedy.partition("; or ")
    again = "and run the same command again to continue"
    assert first.startswith(f"lower data.workers (3) or data.cache_limit_mb (2048) {again}")
    assert "train.per_batch_size (24), train.image_size (640) or train.processes (2)" in then
    without = Config.model_validate({"data": {"workers": 0, "cache": False}})
    assert memory_remedy(without, "detector").startswith("lower train.per_batch_size")
    assert memory_remedy(config, "backbone").startswith("lower pretrain.per_batch_size (32)")


def test_the_memory_of_a_process_includes_its_descendants_and_counts_shared_memory_once(tmp_path: Path) -> None:
    families = {7: "8 9", 8: "10", 9: "", 10: ""}
    for pid, children in families.items():
        shares = (
            {f"proc/{pid}/smaps_rollup": f"Rss: 9000 kB\nPss:    {pid}00 kB\nPss_Dirty: 1 kB\n"} if pid != 9 else {}
        )
        write(tmp_path, **{f"proc/{pid}/task/{pid}/children": children}, **shares)
        write(tmp_path, **{f"proc/{pid}/status": "Name:\tpython\nVmRSS:\t   50 kB\n"})
    # The kernel does not let everybody read the shares of process 9.
    assert memory_of(7, tmp_path) == 1024 * (700 + 800 + 1000 + 50)
    assert memory_of(1, tmp_path) == 0


def test_the_memory_of_a_process_grows_with_what_it_keeps() -> None:
    """In a new process: an old one may have freed memory to use again."""
    keep = "kept = bytearray(b'x' * 50_000_000); print(flush=True); input()"
    command = [sys.executable, "-c", f"print(flush=True); input(); {keep}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        before = memory_of(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        grown = memory_of(process.pid) - before
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 0
    assert 40_000_000 < grown < 200_000_000

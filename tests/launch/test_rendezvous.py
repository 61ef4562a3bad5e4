"""Pods that find each other: as processes and threads of this machine, over real connections."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, WorkError
from kubeyolo.launch.rendezvous import Relay, Rendezvous, relay
from kubeyolo.training.spec import TrainingSpec
from tests.kubernetes_server import wait_for


def free_port() -> int:
    """Return a port that is free, as the one after it is: no one gets such a one by chance, they are too low."""
    while True:
        port = random.randrange(20000, 30000, 2)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", port))
            next_one.bind(("127.0.0.1", port + 1))
            return port


def rendezvous(node: int, port: int, nodes: int = 2, attempt: str = "1", limit: float = 20.0) -> Rendezvous:
    return Rendezvous("job", nodes, node, 1, "127.0.0.1", port, "127.0.0.1", attempt, limit)


@contextlib.contextmanager
def both(tmp_path: Path) -> Iterator[tuple[Relay, Relay, Path, Path]]:
    port = free_port()
    first, second = tmp_path / "0", tmp_path / "1"
    first.mkdir()
    second.mkdir()
    with relay(rendezvous(0, port), first) as one, relay(rendezvous(1, port), second) as other:
        yield one, other, first, second


def test_what_rank_0_leaves_reaches_the_other_pods(tmp_path: Path) -> None:
    with both(tmp_path) as (one, other, first, second):
        assert other.master == "127.0.0.1"
        (first / "barrier-10").touch()
        wait_for(lambda: (second / "barrier-10").exists(), 10)
        (first / "barrier-20-end").touch()
        wait_for(lambda: (second / "barrier-20-end").exists(), 10)
        one.complete = other.complete = True
    assert not one.lost.is_set() and not other.lost.is_set()


def test_the_last_file_arrives_when_the_first_pod_is_done_at_once(tmp_path: Path) -> None:
    port = free_port()
    second = tmp_path / "1"
    second.mkdir()
    with relay(rendezvous(0, port), tmp_path) as one:
        with relay(rendezvous(1, port), second) as other:
            one.complete = True
            (tmp_path / "barrier-30").touch()
            wait_for(lambda: (second / "barrier-30").exists(), 10)
            other.complete = True
        assert not other.lost.is_set()


@pytest.mark.parametrize("gone", [0, 1])
def test_a_pod_that_is_gone_is_noticed_by_the_other(tmp_path: Path, gone: int) -> None:
    port = free_port()
    folders = [tmp_path / "0", tmp_path / "1"]
    for folder in folders:
        folder.mkdir()
    stay, leave = threading.Event(), threading.Event()
    lost: list[bool] = []

    def pod(node: int) -> None:
        with relay(rendezvous(node, port), folders[node]) as state:
            if node == gone:
                (leave if node else stay).wait(20)
                return
            if node:
                stay.set()
            else:
                leave.set()
            lost.append(state.lost.wait(20))

    threads = [threading.Thread(target=pod, args=(node,)) for node in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)
    assert lost == [True]


def test_a_pod_of_another_try_is_not_let_in(tmp_path: Path) -> None:
    port = free_port()
    with relay(rendezvous(0, port, attempt="2"), tmp_path) as first:
        with (
            pytest.raises(WorkError, match="did not accept this pod within 1 s"),
            relay(rendezvous(1, port, limit=1.0), tmp_path),
        ):
            pass
        assert not first.lost.is_set()


def test_a_first_pod_that_is_late_is_waited_for(tmp_path: Path) -> None:
    port, met = free_port(), threading.Event()

    def second() -> None:
        with relay(rendezvous(1, port), tmp_path):
            met.set()

    thread = threading.Thread(target=second, daemon=True)
    thread.start()
    time.sleep(0.5)
    assert not met.is_set()
    with relay(rendezvous(0, port), tmp_path):
        assert met.wait(20)
    thread.join(20)


def test_the_environment_of_a_pod_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "KUBEYOLO_GANG": "job",
        "KUBEYOLO_GANG_NODES": "2",
        "KUBEYOLO_GANG_DEVICES": "8",
        "KUBEYOLO_GANG_MASTER": "job-worker-0.job",
        "KUBEYOLO_GANG_PORT": "8118",
        "KUBEYOLO_GANG_LIMIT": "600",
        "KUBEYOLO_GANG_ATTEMPT": "3",
        "KUBEYOLO_POD_ADDRESS": "10.0.0.7",
        "VC_TASK_INDEX": "1",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = Rendezvous.from_environment()
    assert (found.world, found.node, found.greeting) == (16, 1, "job 3")
    monkeypatch.delenv("VC_TASK_INDEX")
    with pytest.raises(InputError, match="VC_TASK_INDEX is not set"):
        Rendezvous.from_environment()


WORKER = """
import json, os, sys, time
from pathlib import Path
from kubeyolo.processes import die_with_parent
die_with_parent()
folder = Path(os.environ["KUBEYOLO_OUTCOME"])
if os.environ["MS_ROLE"] == "MS_SCHED":
    while not list(folder.glob("rank-*.json")):
        time.sleep(0.05)
    sys.exit(0)
rank = int(os.environ["RANK_ID"])
print(f"rank {rank} of {os.environ['MS_WORKER_NUM']} at {os.environ['MS_SCHED_HOST']}", flush=True)
if rank == 0:
    time.sleep(1)
    (folder / "barrier-7").touch()
while not (folder / "barrier-7").exists():
    time.sleep(0.05)
if Path(os.environ["TEST_HOLD"]).exists():
    time.sleep(60)
print(f"rank {rank} met", flush=True)
(folder / f"rank-{rank}.json").write_text(json.dumps({"rank": rank, "exit_code": 0, "message": ""}))
"""

POD = """
import sys
from kubeyolo.launch import local, pod
local.WORKER_MODULES = {"stub_worker"}
sys.exit(pod.main())
"""


def pods_of(tmp_path: Path) -> list[subprocess.Popen[str]]:
    (tmp_path / "stub_worker.py").write_text(WORKER)
    config = load_config("yolov5n-r7", sets=("train.processes=2",))
    spec = TrainingSpec(dataset=str(tmp_path / "data"), output=str(tmp_path / "output"), config=config)
    work = spec.work().model_copy(update={"module": "stub_worker"})
    port = free_port()
    pods = []
    for node in range(2):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
            "TEST_HOLD": str(tmp_path / "hold"),
            "KUBEYOLO_WORK": work.model_dump_json(),
            "KUBEYOLO_GANG": "job",
            "KUBEYOLO_GANG_NODES": "2",
            "KUBEYOLO_GANG_DEVICES": "1",
            "KUBEYOLO_GANG_MASTER": "127.0.0.1",
            "KUBEYOLO_GANG_PORT": str(port),
            "KUBEYOLO_GANG_LIMIT": "60",
            "KUBEYOLO_POD_ADDRESS": "127.0.0.1",
            "VC_TASK_INDEX": str(node),
        }
        command = [sys.executable, "-c", POD]
        pods.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    return pods


def test_pods_train_as_one_gang_and_leave_their_logs(tmp_path: Path) -> None:
    pods = pods_of(tmp_path)
    said = [pod.communicate(timeout=120)[0] for pod in pods]
    assert [pod.returncode for pod in pods] == [0, 0], said
    for rank, lines in enumerate(said):
        assert lines.splitlines() == [f"rank {rank} of 2 at 127.0.0.1", f"rank {rank} met"]
    logs = sorted((tmp_path / "output" / "logs").glob("*.log"), key=lambda path: path.name[-5])
    of_ranks = [path for path in logs if path.name.startswith("ranks-")]
    assert [path.read_text() for path in logs if path not in of_ranks] == said
    # The lines of all ranks of a pod, each with its time and its rank.
    merged = [[line.split(" ", 1)[1] for line in path.read_text().splitlines()] for path in of_ranks]
    assert merged == [[f"rank {rank}: {line}" for line in lines.splitlines()] for rank, lines in enumerate(said)]


@pytest.mark.parametrize("killed", [0, 1])
def test_a_pod_ends_when_another_one_is_killed(tmp_path: Path, killed: int) -> None:
    (tmp_path / "hold").touch()
    pods = pods_of(tmp_path)
    for pod in pods:
        assert pod.stdout is not None and pod.stdout.readline().startswith("rank")
    time.sleep(1.5)
    pods[killed].send_signal(signal.SIGKILL)
    rest = pods[1 - killed].communicate(timeout=60)[0]
    assert pods[1 - killed].returncode == 1
    assert rest.splitlines()[-1] == "error: a different pod of the gang has ended before this pod was done"
    pods[killed].wait()


def test_a_pod_without_a_spec_says_so(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "KUBEYOLO_WORK"}
    command = [sys.executable, "-m", "kubeyolo.launch.pod"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "KUBEYOLO_WORK cannot be read" in done.stdout
    assert json.dumps(done.stderr) == '""'


def test_a_pod_runs_no_other_program(tmp_path: Path) -> None:
    config = load_config("yolov5n-r7")
    spec = TrainingSpec(dataset="data", output=str(tmp_path / "output"), config=config)
    work = spec.work().model_copy(update={"module": "cProfile"})
    command = [sys.executable, "-m", "kubeyolo.launch.pod"]
    environment = {**os.environ, "KUBEYOLO_WORK": work.model_dump_json()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "unknown module of workers 'cProfile'" in done.stdout
    assert not (tmp_path / "output").exists()

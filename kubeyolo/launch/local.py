"""Training processes on this machine: one alone, or several that msrun starts, alone or with those of other pods."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from kubeyolo import exits
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError
from kubeyolo.launch.gang import Gang, Relay, relay
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.training.spec import EXIT_INTERRUPTED, OUTCOME_FOLDER, TrainingSpec

WORKER_MODULE = "kubeyolo.training.worker"
LAST_LINES = 8

_POLL_SECONDS = 0.2

# What msrun has to end the other processes when one failed. It can wait for ever for its scheduler when a worker ends
# before it has joined the cluster.
_GRACE_SECONDS = 20.0

# MindSpore's parameter server ignores the log level.
_NOISE = re.compile(r"\[INFO\] \w+\(")

Show = Callable[[str], None]


def launch_training(
    spec: TrainingSpec, processes: int | None = None, show: Show | None = None, gang: Gang | None = None
) -> None:
    """Train in processes of their own and wait for them; no MindSpore is imported here.

    What rank 0 prints is passed on. The processes are killed when this one dies, and told to write a checkpoint and
    stop when it is sent SIGTERM or SIGINT.

    Args:
        spec: The training run.
        processes: Number of data-parallel processes; the configured one by default.
        show: Takes each line; prints it by default.
        gang: Of which these are the processes of one pod; all of them are here without it.

    Raises:
        InputError: A process refused its input; the message is that of the process.
        InterruptedWork: The processes were told to stop, and did.
        WorkError: A process failed; with its message, or else its last lines.
    """
    count = spec.processes if processes is None else processes
    if spec.task == "detector" and count != spec.config.train.processes:
        train = spec.config.train.model_copy(update={"processes": count})
        spec = spec.model_copy(update={"config": spec.config.model_copy(update={"train": train})})
    memory_kills = exits.memory_kills()
    with temporary_folder("launch") as folder:
        spec.write(folder / "spec.json")
        worker = [sys.executable, "-m", WORKER_MODULE, str(folder / "spec.json")]
        show = show or _print_line
        if count == 1:
            ended = _run_one(worker, folder, show, inherit=show is _print_line and sys.stdout.isatty())
        else:
            ended = _run_many(worker, folder, gang or _alone(count), show)
        _raise_failure(folder, ended, memory_kills)


@dataclass(frozen=True)
class _Ended:
    """How processes ended: their last lines, the exit code, whether they were told to stop, or lost another pod."""

    lines: list[str]
    code: int
    stopped: bool
    lost: bool = False


def _run_one(worker: list[str], folder: Path, show: Show, inherit: bool) -> _Ended:
    """Run one process; on a terminal it prints for itself, so that it can draw a bar."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    pipe = None if inherit else subprocess.PIPE
    process = subprocess.Popen(
        _guarded(worker),
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=None if inherit else subprocess.STDOUT,
        env=_environment(folder, inherit),
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with _ended(process), _forwarding(lambda: [process.pid]) as stop:
        if process.stdout is not None:
            for line in process.stdout:
                last.append(line.rstrip("\n"))
                show(line.rstrip("\n"))
        code = process.wait()
    return _Ended(list(last), code, stop.is_set())


def _alone(count: int) -> Gang:
    """Return the gang of processes that are all on this machine."""
    return Gang("", 1, 0, count, "127.0.0.1", _free_port(), "127.0.0.1")


def _run_many(worker: list[str], folder: Path, gang: Gang, show: Show) -> _Ended:
    """Run several processes by msrun, which keeps a log file for each."""
    first = gang.node * gang.devices
    ranks = range(first, first + gang.devices)
    with relay(gang, folder) as peers:
        with (folder / "msrun.log").open("w") as log:
            process = subprocess.Popen(
                _guarded(_msrun(worker, folder, gang, peers)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(folder) | {"GLOG_v": "3", "PATH": _path()},
                start_new_session=True,
            )
        follower = _Follower(folder / "logs" / f"worker_{first}.log", show)
        with _ended(process), _forwarding(lambda: _children(process.pid)) as stop:
            _wait_idly(process, folder, ranks, follower, peers)
            follower.poll()
        lost = peers.lost.is_set()
        ended = _Ended(_last_lines(folder, follower), process.returncode, stop.is_set(), lost)
        peers.complete = not lost and _all_done(folder, ranks)
    return ended


def _msrun(worker: list[str], folder: Path, gang: Gang, peers: Relay) -> list[str]:
    """Return the command that starts this machine's processes."""
    interpreter = Path(sys.executable)
    return [
        sys.executable,
        "-m",
        "mindspore.parallel.cluster.run",
        f"--worker_num={gang.world}",
        f"--local_worker_num={gang.devices}",
        f"--master_addr={peers.master}",
        f"--master_port={gang.port}",
        f"--node_rank={gang.node}",
        f"--cluster_time_out={int(gang.limit)}",
        "--join=True",
        # Of no worker: it would start a tail for each, which outlives it.
        f"--tail_worker_log={gang.world}",
        f"--log_dir={folder / 'logs'}",
        # msrun knows a program only by these names, and would start any other one as a script of python.
        "python" if interpreter.with_name("python").exists() else "python3",
        *worker[1:],
    ]


def _path() -> str:
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))


def _wait_idly(process: subprocess.Popen[Any], folder: Path, ranks: range, follower: _Follower, peers: Relay) -> None:
    """Wait for msrun, and let it sleep meanwhile: it waits for its processes in a loop without a pause.

    Of a pod with a limit of processors it would take half. Returns with msrun still running when a worker has failed
    and msrun does not end within the grace, and when another pod is lost.
    """
    # Node 0 has the scheduler beside its workers.
    started, asleep, failed_at = len(ranks) + (ranks.start == 0), False, None
    while process.poll() is None:
        children = _children(process.pid)
        busy = len(children) == started and not any(map(_has_ended, children))
        if busy != asleep:
            process.send_signal(signal.SIGSTOP if busy else signal.SIGCONT)
            asleep = busy
        follower.poll()
        if failed_at is None and _worker_failed(process.pid, folder):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_SECONDS:
            return
        if failed_at is None and peers.lost.is_set():
            return
        time.sleep(_POLL_SECONDS)


def _all_done(folder: Path, ranks: range) -> bool:
    outcomes = _outcomes(folder)
    return len(outcomes) == len(ranks) and all(outcome["exit_code"] == 0 for outcome in outcomes)


def _worker_failed(launcher: int, folder: Path) -> bool:
    """Tell whether a worker has said that it failed, or has ended without saying anything."""
    outcomes = _outcomes(folder)
    ended = sum(_has_ended(pid) for pid in _children(launcher))
    # Those that were told to stop are writing a checkpoint, however long it takes.
    return any(outcome["exit_code"] not in (0, EXIT_INTERRUPTED) for outcome in outcomes) or ended > len(outcomes)


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


class _Follower:
    """Passes on the lines of a growing file."""

    def __init__(self, path: Path, show: Show) -> None:
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._path, self._show = path, show
        self._position = 0
        self._rest = ""

    def poll(self) -> None:
        """Pass on the lines that are complete by now."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        self._position += len(data)
        *lines, self._rest = (self._rest + data.decode(errors="replace")).split("\n")
        for line in lines:
            if _NOISE.match(line):
                continue
            self.last.append(line)
            self._show(line)


def _raise_failure(folder: Path, ended: _Ended, memory_kills: int) -> None:
    code = ended.code
    outcomes = _outcomes(folder)
    failed = [outcome for outcome in outcomes if outcome["exit_code"] != 0]
    if code == 0 and not failed:
        return
    # A process that was killed because another failed has nothing to say.
    kinds: dict[int, type[KubeyoloError]] = {
        InputError.exit_code: InputError,
        WorkError.exit_code: WorkError,
        EXIT_INTERRUPTED: InterruptedWork,
    }
    for kind, error in kinds.items():
        for outcome in failed:
            if outcome["exit_code"] == kind:
                raise error(outcome["message"])
    if ended.lost:
        raise WorkError("another pod of the gang has ended before its time")
    if ended.stopped:
        raise InterruptedWork("interrupted: told to stop before its first step; the same command continues")
    reason = f"{exits.ending(code)}{exits.killed_for_memory(memory_kills)}"
    tail = " | ".join(line for line in ended.lines if line.strip()) or "nothing"
    raise WorkError(f"a training process failed ({reason}); it printed last: {tail}")


def _outcomes(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("rank-*.json"))]


def _last_lines(folder: Path, follower: _Follower) -> list[str]:
    """Return the last lines of the ranks that ended without an outcome: the one that failed is among them."""
    found: list[str] = []
    for path in sorted((folder / "logs").glob("worker_*.log")):
        rank = path.stem.removeprefix("worker_")
        if not (folder / f"rank-{rank}.json").exists():
            lines = [line for line in path.read_text("utf-8", errors="replace").splitlines() if not _NOISE.match(line)]
            found += [f"rank {rank}:", *lines[-LAST_LINES:]] if lines else []
    return found or list(follower.last) or _lines_of_msrun(folder)


def _lines_of_msrun(folder: Path) -> list[str]:
    """Return the last lines of msrun, which has the word when it ended before it started a process."""
    path = folder / "msrun.log"
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    return [line for line in lines if not _NOISE.match(line)][-LAST_LINES:]


def _guarded(command: list[str]) -> list[str]:
    return [sys.executable, "-m", "kubeyolo.launch.guard", *command]


def _environment(folder: Path, inherit: bool = False) -> dict[str, str]:
    """Return the environment of the processes; what a killed one leaves in its TMPDIR goes with the folder.

    Args:
        folder: Of this launch.
        inherit: They print to the console of this process, in its encoding, and not to this process.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    output = exits.UTF8_OUTPUT | exits.INSTALLED_CODE
    if inherit:
        output = output | {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"}
    return os.environ | output | {OUTCOME_FOLDER: str(folder), "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}


@contextlib.contextmanager
def _ended(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Leave no process behind, whatever happens here."""
    try:
        yield
    finally:
        if process.poll() is None:
            for pid in (*_children(process.pid), process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def _forwarding(targets: Callable[[], list[int]]) -> Iterator[threading.Event]:
    """Pass SIGTERM and SIGINT on as SIGTERM, when this is the main thread, which alone can take signals.

    The event is set once one has come.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def forward(number: int, frame: FrameType | None) -> None:
        stop.set()
        for pid in targets():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    old: Mapping[int, Any] = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _print_line(line: str) -> None:
    print(line, flush=True)

"""Training processes on this machine: one alone, or several that msrun starts, alone or with those of other pods."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kubeyolo import exits
from kubeyolo.launch.endings import Ended, outcomes, raise_failure, warn_of_lost_lines
from kubeyolo.launch.forwarding import Forwarding, forwarding
from kubeyolo.launch.gang import Gang, Relay, relay
from kubeyolo.memory import memory_kills
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
    stop when it is sent one of :func:`kubeyolo.stop_signals.stop_signals`. A Ctrl-C after that kills them.

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
    kills = memory_kills()
    with temporary_folder("launch") as folder:
        spec.write(folder / "spec.json")
        worker = [sys.executable, "-m", WORKER_MODULE, str(folder / "spec.json")]
        show = show or _print_line
        if count == 1:
            ended = _run_one(worker, folder, show, inherit=show is _print_line and sys.stdout.isatty())
        else:
            ended = _run_many(worker, folder, gang or _alone(count), show)
        raise_failure(folder, ended, spec, kills)
        warn_of_lost_lines(folder, show)


def _run_one(worker: list[str], folder: Path, show: Show, inherit: bool) -> Ended:
    """Run one process; on a terminal it prints for itself, so that it can draw a bar."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    pipe = None if inherit else subprocess.PIPE
    with forwarding(_over_bar if inherit else show) as stop:
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
        with _ended(process):
            stop.attach(lambda: [process.pid], lambda: [process.pid])
            if process.stdout is not None:
                for line in process.stdout:
                    last.append(line.rstrip("\n"))
                    show(line.rstrip("\n"))
            code = process.wait()
    return Ended(None if inherit else list(last), code, stop.told, stop.killed)


def _alone(count: int) -> Gang:
    """Return the gang of processes that are all on this machine."""
    return Gang("", 1, 0, count, "127.0.0.1", _free_port(), "127.0.0.1")


def _run_many(worker: list[str], folder: Path, gang: Gang, show: Show) -> Ended:
    """Run several processes by msrun, which keeps a log file for each."""
    first = gang.node * gang.devices
    ranks = range(first, first + gang.devices)
    with relay(gang, folder) as peers, forwarding(show) as stop:
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
        with _ended(process):
            stop.attach(lambda: _children(process.pid), lambda: [*_children(process.pid), process.pid])
            failed = _wait_idly(process, folder, ranks, follower, peers, stop)
            follower.poll()
        lost = peers.lost.is_set()
        # msrun ends the others itself, which is no failure where it has ended well.
        code = failed if failed is not None and process.returncode != 0 else process.returncode
        ended = Ended(_last_lines(folder, follower), code, stop.told, stop.killed, lost)
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


def _wait_idly(
    process: subprocess.Popen[Any], folder: Path, ranks: range, follower: _Follower, peers: Relay, stop: Forwarding
) -> int | None:
    """Wait for msrun, and let it sleep meanwhile: it waits for its processes in a loop without a pause.

    Of a pod with a limit of processors it would take half. Returns with msrun still running when a worker has failed
    and msrun does not end within the grace, when rank 0 has stopped as told, without which the others cannot go on, and
    when another pod is lost. Returns the exit code of the first process
    that has failed, as far as it was seen: msrun does not say it.
    """
    # Node 0 has the scheduler beside its workers.
    started, asleep, failed_at, code = len(ranks) + (ranks.start == 0), False, None, None
    while process.poll() is None:
        # msrun takes seconds until it starts its processes, one after another.
        stop.pass_on()
        children = _children(process.pid)
        if code is None:
            code = next(filter(None, map(_exit_code, children)), None)
        busy = len(children) == started and not any(map(_has_ended, children))
        if busy != asleep:
            process.send_signal(signal.SIGSTOP if busy else signal.SIGCONT)
            asleep = busy
        follower.poll()
        if failed_at is None and _worker_failed(process.pid, folder):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_SECONDS:
            return code
        if failed_at is None and (peers.lost.is_set() or _is_interrupted(folder)):
            return code
        time.sleep(_POLL_SECONDS)
    return code


def _all_done(folder: Path, ranks: range) -> bool:
    found = outcomes(folder)
    return len(found) == len(ranks) and all(outcome["exit_code"] == 0 for outcome in found)


def _worker_failed(launcher: int, folder: Path) -> bool:
    """Tell whether a worker has said that it failed, or has ended without saying anything."""
    found = outcomes(folder)
    ended = sum(_has_ended(pid) for pid in _children(launcher))
    # Those that were told to stop are writing a checkpoint, however long it takes.
    return any(outcome["exit_code"] not in (0, EXIT_INTERRUPTED) for outcome in found) or ended > len(found)


def _is_interrupted(folder: Path) -> bool:
    """Tell whether rank 0, which alone is told to stop, has done so."""
    return any(outcome["exit_code"] == EXIT_INTERRUPTED for outcome in outcomes(folder))


def _has_ended(pid: int) -> bool:
    return _exit_code(pid) is not None


def _exit_code(pid: int) -> int | None:
    """Return the exit code of a process that has ended and was not waited for, negative after a signal; else None."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if fields[0] == "Z" else None


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


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _over_bar(line: str) -> None:
    """Print a line on a terminal where a process may be drawing a bar, in the place of the bar."""
    print(f"\r\x1b[K{line}", flush=True)


def _print_line(line: str) -> None:
    print(line, flush=True)

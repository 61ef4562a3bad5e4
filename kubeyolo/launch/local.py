"""Worker processes on this machine: one process, or several started by msrun; other pods may run more processes."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kubeyolo.errors import InputError, check_known, one_line
from kubeyolo.launch.binding import binding_options
from kubeyolo.launch.endings import Ended, outcomes, raise_failure, warn_of_lost_lines
from kubeyolo.launch.forwarding import STOPPING, STOPPING_WITHOUT_CHECKPOINT, Forwarding, forwarding
from kubeyolo.launch.rank_logs import LAST_LINES, RankLogs, StoredLog, last_lines, tails
from kubeyolo.launch.rendezvous import Relay, Rendezvous, relay
from kubeyolo.memory import memory_kills
from kubeyolo.output_streams import Show, print_line
from kubeyolo.processes import INSTALLED_CODE, UTF8_OUTPUT, children, exit_code, guarded, send_signal
from kubeyolo.storage.workspace import temporary_folder
from kubeyolo.work import BOUND, EXIT_INTERRUPTED, OUTCOME_FOLDER, Work

WORKER_MODULES = frozenset({"kubeyolo.training.worker", "kubeyolo.steps.worker"})
"""The modules that processes may run: nothing that a job is given can name another program."""

CHOSEN_PORTS = range(20_000, 30_000)
"""Ports below those that Linux, macOS and IANA name for connections and for programs that ask for any free port."""

_POLL_SECONDS = 0.2

# Time for msrun to kill the remaining processes after one process has failed. msrun can wait forever for its scheduler
# if a worker ends before it has joined the other processes.
_GRACE_SECONDS = 20.0


def check_module(work: Work) -> None:
    """Refuse work that names a program other than a worker of kubeyolo.

    Raises:
        InputError: The module is not known.
    """
    check_known("module of workers", work.module, WORKER_MODULES, f"the work {one_line(work.name, 80)}")


def launch_work(work: Work, show: Show | None = None, rendezvous: Rendezvous | None = None) -> None:
    """Start the processes of some work and wait for them; this process does not import MindSpore.

    The lines of rank 0 are passed on. The children are killed when this process dies. At a signal from
    :func:`kubeyolo.stop_signals.stop_signals` they write a checkpoint and stop; a Ctrl-C after that kills them.

    Args:
        work: The work.
        show: Shows a line; prints it by default.
        rendezvous: How this pod finds the other pods; if None, all processes are on this machine.

    Raises:
        InputError: The module is not a worker of kubeyolo, or a process refused its input; then the message is that of
            the process.
        InterruptedWork: The processes stopped after a stop signal.
        WorkError: A process failed; the error has the message of the process or, if there is none, its last lines.
    """
    check_module(work)
    kills = memory_kills()
    with temporary_folder("launch") as folder:
        document = folder / "document.json"
        document.write_text(work.document, encoding="utf-8")
        worker = [sys.executable, "-m", work.module, str(document)]
        show = show or print_line
        if work.processes == 1:
            inherit = show is print_line and sys.stdout.isatty()
            ended = _run_one(worker, folder, show, _announcement(work), inherit)
        else:
            here = "127.0.0.1"
            rendezvous = rendezvous or Rendezvous("", 1, 0, work.processes, here, _free_port(), here)
            ended = _run_many(work, worker, folder, rendezvous, show)
        raise_failure(folder, ended, work, kills)
        warn_of_lost_lines(folder, show)


def _announcement(work: Work) -> str:
    """Return what is shown at the first stop signal."""
    return STOPPING if work.has_checkpoints else STOPPING_WITHOUT_CHECKPOINT


def _run_one(worker: list[str], folder: Path, show: Show, stopping: str, inherit: bool) -> Ended:
    """Run one process; on a terminal it prints directly, so that it can draw a bar."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    output, environment = None if inherit else subprocess.PIPE, _environment(folder, inherit)
    with (
        forwarding(_over_bar if inherit else show, stopping) as stop,
        _running(worker, output, environment) as process,
    ):
        stop.attach(lambda: [process.pid], lambda: [process.pid])
        for line in process.stdout or ():
            last.append(line.rstrip("\n"))
            show(line.rstrip("\n"))
        code = process.wait()
    return Ended(None if inherit else list(last), code, stop.stop_requested, stop.killed)


def _run_many(work: Work, worker: list[str], folder: Path, rendezvous: Rendezvous, show: Show) -> Ended:
    """Run several processes through msrun, which writes a log file for each process.

    Args:
        work: Their work.
        worker: Command of one process.
        folder: Folder of this launch.
        rendezvous: How this machine finds the others.
        show: Shows a line.
    """
    first = rendezvous.node * rendezvous.devices
    ranks = range(first, first + rendezvous.devices)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = _environment(folder) | {"GLOG_v": "3", "PATH": path} | ({BOUND: "1"} if work.bind_core else {})
    options = binding_options(work, rendezvous.devices)
    stored = StoredLog(work.output, rendezvous.node, rendezvous.nodes, show) if work.has_checkpoints else None
    with (
        relay(rendezvous, folder) as peers,
        forwarding(show, _announcement(work)) as stop,
        (folder / "msrun.log").open("w") as log,
    ):
        logs = RankLogs(folder / "logs", ranks, show, stored)
        with _running(_msrun(worker, options, folder, rendezvous, peers), log, environment) as process:
            stop.attach(lambda: children(process.pid), lambda: [*children(process.pid), process.pid])
            failed = _wait_idly(process, folder, ranks, logs, peers, stop)
            logs.poll()
        codes = [outcome["exit_code"] for outcome in outcomes(folder)]
        if stored and {*codes} != {InputError.exit_code}:
            # A training whose input was refused stores nothing: its output may have a different training.
            stored.write()
        lost = peers.lost.is_set()
        # msrun itself kills the remaining processes, which is not a failure if msrun succeeds.
        code = failed if failed is not None and process.returncode != 0 else process.returncode
        ended = Ended(_last_lines(folder, logs), code, stop.stop_requested, stop.killed, lost)
        peers.complete = not lost and codes == [0] * len(ranks)
    return ended


def _msrun(worker: list[str], options: list[str], folder: Path, rendezvous: Rendezvous, peers: Relay) -> list[str]:
    """Return the command that starts this machine's processes; ``options`` are further options of msrun."""
    interpreter = Path(sys.executable)
    return [
        sys.executable,
        "-m",
        "mindspore.parallel.cluster.run",
        f"--worker_num={rendezvous.world}",
        f"--local_worker_num={rendezvous.devices}",
        f"--master_addr={peers.master}",
        f"--master_port={rendezvous.port}",
        f"--node_rank={rendezvous.node}",
        f"--cluster_time_out={int(rendezvous.limit)}",
        "--join=True",
        *options,
        # This rank does not exist: for an existing rank msrun would start a tail that outlives it.
        f"--tail_worker_log={rendezvous.world}",
        f"--log_dir={folder / 'logs'}",
        # msrun recognizes python only by these names, and would run a program with any other name as a Python script.
        "python" if interpreter.with_name("python").exists() else "python3",
        *worker[1:],
    ]


def _wait_idly(
    process: subprocess.Popen[Any], folder: Path, ranks: range, logs: RankLogs, peers: Relay, stop: Forwarding
) -> int | None:
    """Wait for msrun, and suspend it meanwhile: it waits for its processes in a busy loop.

    The busy loop could use half of the processors of a pod. The function returns before msrun has ended in three cases:
    a worker has failed and msrun does not end within the grace time; rank 0 has stopped after a stop signal, because
    the other ranks cannot continue without it; or a different pod is lost.

    Returns:
        The exit code of the first process that failed, if it was observed: msrun does not report it.
    """
    scheduler_log = folder / "logs" / "scheduler.log"
    asleep, failed_at, code = False, None, None
    while process.poll() is None:
        # msrun starts its processes one after another, which takes seconds.
        stop.pass_on()
        present = children(process.pid)
        if code is None:
            code = next(filter(None, map(exit_code, present)), None)
        # Where the address of the scheduler is this machine's, msrun runs it, before all workers.
        started = len(ranks) + scheduler_log.exists()
        busy = len(present) == started and not any(exit_code(pid) is not None for pid in present)
        if busy != asleep:
            process.send_signal(signal.SIGSTOP if busy else signal.SIGCONT)
            asleep = busy
        logs.poll()
        if failed_at is None and _worker_failed(process.pid, folder):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE_SECONDS:
            return code
        if failed_at is None and (peers.lost.is_set() or _is_interrupted(folder)):
            return code
        time.sleep(_POLL_SECONDS)
    return code


def _worker_failed(launcher: int, folder: Path) -> bool:
    """Tell whether a worker has reported a failure, or has ended without a report."""
    reports = outcomes(folder)
    ended = sum(exit_code(pid) is not None for pid in children(launcher))
    # After a stop signal, workers may take any time to write their checkpoint.
    return any(outcome["exit_code"] not in (0, EXIT_INTERRUPTED) for outcome in reports) or ended > len(reports)


def _is_interrupted(folder: Path) -> bool:
    """Tell whether rank 0, the only rank that receives the stop signal, has stopped."""
    return any(outcome["exit_code"] == EXIT_INTERRUPTED for outcome in outcomes(folder))


def _last_lines(folder: Path, logs: RankLogs) -> list[str]:
    """Return the last lines of the ranks that ended without an outcome, which include the failed rank.

    If msrun ended before it started a process, the last lines of msrun are returned.
    """
    ranks = (int(path.stem.removeprefix("worker_")) for path in (folder / "logs").glob("worker_*.log"))
    ended = [rank for rank in sorted(ranks) if not (folder / f"rank-{rank}.json").exists()]
    return tails(folder / "logs", ended) or list(logs.last) or last_lines(folder / "msrun.log")


def _environment(folder: Path, inherit: bool = False) -> dict[str, str]:
    """Return the environment variables of the processes; TMPDIR is in the folder, which is removed with its files.

    Args:
        folder: Folder of this launch, which is removed at its end.
        inherit: Whether the processes print to the console of this process, in its encoding.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    output = UTF8_OUTPUT | INSTALLED_CODE
    if inherit:
        output = output | {"PYTHONIOENCODING": f"{sys.stdout.encoding}:backslashreplace"}
    return os.environ | output | {OUTCOME_FOLDER: str(folder), "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}


@contextlib.contextmanager
def _running(command: list[str], output: int | IO[str] | None, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Start a process; kill it and its children at the end of the block, or when this process dies.

    Args:
        command: The program and its arguments.
        output: Receives standard output and standard error; if None, both are inherited from this process.
        env: Environment variables.
    """
    process = subprocess.Popen(
        guarded(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        env=env,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            send_signal((*children(process.pid), process.pid), signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    """Return a port that is free now and that the system gives to nobody who asks it for any free port.

    The scheduler of the processes opens the port seconds later. A port that the system has chosen itself may by then
    be the one of another program's connection.
    """
    with socket.socket() as probe:
        for port in random.SystemRandom().sample(CHOSEN_PORTS, 100):
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _over_bar(line: str) -> None:
    """Print a line over the bar that a process may be drawing on the terminal."""
    print(f"\r\x1b[K{line}", flush=True)

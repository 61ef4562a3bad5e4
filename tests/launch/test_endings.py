"""Every end of a training as its launcher sees it: signals, a killed process, an output that cannot be written.

A small program stands in for the training process. ``compile`` holds it as MindSpore's compiler does: no handler of a
signal runs until it returns.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.config.schema import Config
from kubeyolo.launch import local
from tests.launch.test_local import STUB

WORKER = (
    STUB
    + """
import ctypes, tempfile
from kubeyolo.output_streams import patient_streams
from kubeyolo.training.loop import StopRequest

def compile(seconds):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

def scheduler():
    while len(list(Path(os.environ["KUBEYOLO_OUTCOME"]).glob("rank-*.json"))) < 2:
        time.sleep(0.1)
    sys.exit(0)

def leave_as(rank):
    Path(os.environ["KUBEYOLO_OUTCOME"], f"rank-{rank}.json").write_text(
        json.dumps({"rank": rank, "exit_code": 0, "message": ""}))
    sys.exit(0)

def checkpoint(step):
    folder = Path(spec["output"], "checkpoints", f"step-{step:08d}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint.json").write_text("{}")

def train(steps):
    for step in range(1, steps + 1):
        time.sleep(0.02)
        print("iter", step, flush=True)
        if stop.requested:
            checkpoint(step)
            leave(143, f"interrupted: stopped after step {step}; run the same command again to continue")

if os.environ.get("MS_ROLE") == "MS_SCHED":
    scheduler()
rank = int(os.environ.get("RANK_ID", "0"))
stop = StopRequest()
stop.install(listen=rank == 0)
Path(tempfile.mkdtemp(), "half").touch()
"""
)

LAUNCHER = """
import sys
from kubeyolo.cli import app, streams
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.launch import local
from kubeyolo.training import spec
spec.WORKER_MODULE = "stub_worker"
local.WORKER_MODULES = {"stub_worker"}
local._GRACE_SECONDS = 1.0

@app.app.command("launch")
def launch(processes: int) -> None:
    with streams.stored_work(False):
        config = Config(train=TrainConfig(processes=processes))
        local.launch_work(spec.TrainingSpec(dataset="d", output=OUTPUT, config=config).work())

app.main()
"""


class Launch:
    """A launcher as a command, with its folders."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "tmp").mkdir()
        (folder / "launcher.py").write_text(LAUNCHER.replace("OUTPUT", repr(str(folder / "out"))))

    def start(self, body: str, processes: int = 1, **streams: Any) -> subprocess.Popen[bytes]:
        """Start it with a training process that does what the body says."""
        (self.folder / "stub_worker.py").write_text(WORKER + textwrap.dedent(body))
        paths = [str(self.folder), str(Path(local.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(self.folder / "tmp")}
        variables["KUBEYOLO_CACHE"] = str(self.folder / "cache")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(self.folder / "launcher.py"), "launch", str(processes)],
                env={**os.environ, **variables},
                **{"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True, **streams},
            )
        return self.process

    def hear(self, words: str) -> None:
        """Wait until a line with these words was printed."""
        wait_until(lambda: words in self.log.read_text(errors="replace"))

    def end(self, seconds: float = 30.0) -> tuple[int, list[str]]:
        """Wait for its end; return the exit code and its lines, when nothing is left in the temporary folder."""
        assert self.process is not None
        code = self.process.wait(seconds)
        assert list((self.folder / "tmp").iterdir()) == []
        return code, self.log.read_text(errors="replace").splitlines()

    def checkpoints(self) -> list[str]:
        """Return the names of the checkpoints."""
        return sorted(path.name for path in (self.folder / "out" / "checkpoints").glob("*"))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    launch = Launch(tmp_path)
    yield launch
    if launch.process is not None and launch.process.poll() is None:
        launch.process.kill()
        launch.process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_at_a_checkpoint(launch: Launch, number: signal.Signals) -> None:
    process = launch.start("train(2000)")
    launch.hear("iter 3")
    process.send_signal(number)
    code, lines = launch.end()
    (step,) = launch.checkpoints()
    assert code == 130
    assert [line for line in lines if line.startswith("stopping after the current step")]
    stopped = f"interrupted: stopped after step {int(step[5:])}"
    assert lines[-1] == f"error: {stopped}; run the same command again to continue"


def test_signals_that_come_together_do_not_cost_the_checkpoint(launch: Launch) -> None:
    process = launch.start("print('compiling', flush=True); compile(1.5); train(2000)")
    launch.hear("compiling")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.05)
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    assert launch.end()[0] == 130
    assert launch.checkpoints() == ["step-00000001"]


@pytest.mark.parametrize(
    ("before", "words"),
    [("", "there is no checkpoint yet"), ("checkpoint(7)", "continue from the checkpoint of step 7")],
)
def test_a_second_ctrl_c_ends_it_while_the_graph_is_compiled(launch: Launch, before: str, words: str) -> None:
    process = launch.start(f"{before}\nprint('compiling', flush=True); compile(60)")
    launch.hear("compiling")
    process.send_signal(signal.SIGINT)
    launch.hear("Ctrl-C again ends it at once")
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    code, lines = launch.end(5)
    assert code == 130 and lines[-1].startswith("error: interrupted: ended at once; ") and words in lines[-1]


def test_a_second_ctrl_c_ends_several_processes(launch: Launch) -> None:
    process = launch.start("print('compiling', flush=True); compile(60)", processes=2)
    launch.hear("compiling")
    process.send_signal(signal.SIGINT)
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    code, lines = launch.end(8)
    assert code == 130 and "ended at once" in lines[-1]


def test_under_nohup_it_outlives_its_terminal(launch: Launch) -> None:
    process = launch.start("train(30); leave(0)", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    launch.hear("iter 3")
    process.send_signal(signal.SIGHUP)
    worker = next(iter(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
    os.kill(int(worker), signal.SIGHUP)
    code, lines = launch.end()
    assert (code, lines[-1]) == (0, "iter 30")


REMEDY = "lower data.workers (2) or data.cache_limit_mb (2048) and run the same command again to continue"


@pytest.mark.parametrize("processes", [1, 2])
def test_a_process_that_was_killed_has_most_likely_lacked_memory(launch: Launch, processes: int) -> None:
    body = "print('iter 1', flush=True)\nif rank == {} - 1: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"
    launch.start(body.format(processes), processes=processes)
    code, lines = launch.end(60)
    assert code == 1
    assert lines[-1].startswith("error: a training process failed (killed by SIGKILL, most likely for lack of memory")
    train = Config().train
    size = f"train.image_size ({train.image_size})"
    more = f", {size} or train.processes (2)" if processes > 1 else f" or {size}"
    assert REMEDY in lines[-1] and f"train.per_batch_size ({train.per_batch_size}){more}" in lines[-1]
    assert ("train.processes (2)" in lines[-1]) is (processes == 2)


def test_a_process_that_aborts_for_lack_of_memory_is_known_by_its_words(launch: Launch) -> None:
    launch.start("print(\"terminate called after throwing an instance of 'std::bad_alloc'\", flush=True); os.abort()")
    code, lines = launch.end()
    assert code == 1 and "killed by SIGABRT, for lack of memory); lower" in lines[-1]


def test_processes_that_have_lost_rank_0_to_a_signal_do_not_hold_up_the_end(launch: Launch) -> None:
    # As they wait for it in an exchange, or fail in one.
    process = launch.start(
        """
        if rank == 1:
            print("in an exchange", flush=True)
            while not list(Path(os.environ["KUBEYOLO_OUTCOME"]).glob("rank-0.json")): time.sleep(0.01)
            Path(os.environ["KUBEYOLO_OUTCOME"], "rank-1.json").write_text(
                json.dumps({"rank": 1, "exit_code": 1, "message": "training failed: the meta server has exited"}))
            time.sleep(60)
        train(1000)
        """,
        processes=2,
    )
    launch.hear("iter 3")
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, lines = launch.end()
    assert code == 130 and lines[-1].startswith("error: interrupted: stopped after step")
    assert len(launch.checkpoints()) == 1 and time.monotonic() - begun < 15


def test_a_signal_reaches_processes_that_begin_after_it(launch: Launch) -> None:
    process = launch.start("print('iter 0', flush=True); time.sleep(60)", processes=2)
    # msrun is there, and has started nothing yet.
    wait_until(lambda: children_of(process.pid) != [])
    process.send_signal(signal.SIGTERM)
    code, lines = launch.end()
    assert code == 130 and "there is no checkpoint yet" in lines[-1]


def test_a_crash_after_a_signal_is_not_called_an_interruption(launch: Launch) -> None:
    process = launch.start(
        """
        print("ready", flush=True)
        while not stop.requested: time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGSEGV)
        """
    )
    launch.hear("ready")
    process.send_signal(signal.SIGTERM)
    code, lines = launch.end()
    assert code == 1 and "killed by SIGSEGV" in lines[-1]


@pytest.mark.parametrize("processes", [1, 2])
def test_it_goes_on_when_nobody_reads_its_lines(launch: Launch, tmp_path: Path, processes: int) -> None:
    reader, output = os.pipe()
    body = f"train(30 if rank == 0 else 0); Path({str(tmp_path)!r}, f'done-{{rank}}').touch(); leave(0)"
    with (tmp_path / "errors").open("wb") as errors:
        launch.start(body.replace("leave(0)", "leave_as(rank)"), processes, stdout=output, stderr=errors)
    os.close(output)
    os.read(reader, 1)
    os.close(reader)
    code, _ = launch.end(60)
    lines = (tmp_path / "errors").read_text().splitlines()
    assert code == 1 and (tmp_path / "done-0").exists()
    assert [line.partition(" standard output: closed by")[0] for line in lines] == ["warning:", "error:"]


def test_a_process_that_draws_on_a_terminal_outlives_it(launch: Launch, tmp_path: Path) -> None:
    ours, terminal = pty.openpty()
    # Without a session of its own for the terminal no SIGHUP comes: writing to it fails alone.
    body = f"""
    with patient_streams():
        train(3)
        while not Path({str(tmp_path / "gone")!r}).exists(): time.sleep(0.01)
        train(20)
        print("a bar", file=sys.stderr, flush=True)
    Path({str(tmp_path / "done")!r}).touch()
    leave(0)
    """
    launch.start(body, stdout=terminal, stderr=terminal)
    os.close(terminal)
    heard = b""
    while b"iter 3" not in heard:
        heard += os.read(ours, 1000)
    os.close(ours)
    (tmp_path / "gone").touch()
    assert launch.end()[0] == 0 and (tmp_path / "done").exists()


def test_the_checkpoint_is_written_when_the_terminal_closes(launch: Launch) -> None:
    ours, terminal = pty.openpty()
    process = launch.start("with patient_streams(): train(2000)", stdout=terminal, stderr=terminal)
    os.close(terminal)
    heard = b""
    while b"iter 3" not in heard:
        heard += os.read(ours, 1000)
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    assert launch.end()[0] == 130 and len(launch.checkpoints()) == 1

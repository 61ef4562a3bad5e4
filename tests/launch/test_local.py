from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import InputError, WorkError
from kubeyolo.launch import local
from kubeyolo.steps import job
from kubeyolo.training import spec as training
from kubeyolo.training.spec import TrainingSpec

STUB = """
import json, os, signal, sys, time
from pathlib import Path

def leave(code, message=""):
    Path(os.environ["KUBEYOLO_OUTCOME"], "rank-0.json").write_text(
        json.dumps({"rank": 0, "exit_code": code, "message": message}))
    sys.exit(code)

spec = json.loads(Path(sys.argv[1]).read_text())
print("spec for", spec["output"], flush=True)
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that replaces the training worker by a small program."""

    def write(body: str) -> None:
        (tmp_path / "stub_worker.py").write_text(STUB + textwrap.dedent(body))
        paths = [str(tmp_path), str(Path(local.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
        monkeypatch.setattr("kubeyolo.training.spec.WORKER_MODULE", "stub_worker")
        monkeypatch.setattr(local, "WORKER_MODULES", {"stub_worker"})

    return write


def spec(processes: int = 1) -> TrainingSpec:
    return TrainingSpec(dataset="data", output="there", config=Config(train=TrainConfig(processes=processes)))


def test_lines_of_the_process_are_passed_on(stub) -> None:  # type: ignore[no-untyped-def]
    stub("print('epoch[0], iter[1]', flush=True); leave(0)")
    lines: list[str] = []
    local.launch_work(spec().work(), lines.append)
    assert lines == ["spec for there", "epoch[0], iter[1]"]


@pytest.mark.parametrize("module", ["cProfile", "kubeyolo.launch.pod", "kubeyolo.training", "", "stub_worker "])
def test_a_module_that_is_no_worker_is_not_started(stub, module: str) -> None:  # type: ignore[no-untyped-def]
    stub("leave(0)")
    work = spec().work().model_copy(update={"module": module})
    with pytest.raises(InputError, match=f"unknown module of workers '{module}' .from the work train.; "):
        local.launch_work(work, lambda line: None)


def test_every_kind_of_work_has_a_module_that_may_run() -> None:
    assert {training.WORKER_MODULE, job.WORKER_MODULE} == local.WORKER_MODULES
    assert all(find_spec(module) for module in local.WORKER_MODULES)


def test_what_a_killed_process_left_in_its_temporary_folder_is_removed(stub) -> None:  # type: ignore[no-untyped-def]
    stub(
        """
        import tempfile
        Path(tempfile.mkdtemp(), "half-a-checkpoint").touch()
        print(tempfile.gettempdir(), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    lines: list[str] = []
    with pytest.raises(WorkError, match="killed by SIGKILL"):
        local.launch_work(spec().work(), lines.append)
    folder = Path(lines[-1])
    assert folder.is_relative_to(tempfile.gettempdir()) and not folder.exists()


def test_bad_input_of_the_process_is_bad_input_here(stub) -> None:  # type: ignore[no-untyped-def]
    stub("leave(2, 'unknown model')")
    with pytest.raises(InputError, match="^unknown model$"):
        local.launch_work(spec().work(), lambda line: None)


def test_failed_work_keeps_its_message(stub) -> None:  # type: ignore[no-untyped-def]
    stub("leave(1, 'the loss is not finite')")
    with pytest.raises(WorkError, match="^the loss is not finite$"):
        local.launch_work(spec().work(), lambda line: None)


def test_a_crash_is_reported_with_the_last_lines(stub) -> None:  # type: ignore[no-untyped-def]
    stub("print('the last words', flush=True); os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(WorkError, match=r"killed by SIGSEGV.*the last words"):
        local.launch_work(spec().work(), lambda line: None)


def test_the_process_does_not_outlive_the_launcher(stub, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stub(f"Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); time.sleep(60)")
    code = (
        "from kubeyolo.launch import local; from kubeyolo.training import spec\n"
        "from kubeyolo.config.schema import Config\n"
        "spec.WORKER_MODULE = 'stub_worker'\n"
        "local.WORKER_MODULES = {'stub_worker'}\n"
        "local.launch_work(spec.TrainingSpec(dataset='d', output='o', config=Config()).work())"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    pid_file = tmp_path / "pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text() != "")
    pid = int(pid_file.read_text())
    launcher.kill()
    launcher.wait()
    wait_until(lambda: not running(pid))


def test_sigterm_is_passed_on_to_the_process(stub, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stub(
        """
        signal.signal(signal.SIGTERM, lambda number, frame: leave(143, "interrupted: stopped after step 3"))
        print("ready", flush=True)
        time.sleep(60)
        """
    )

    def show(line: str) -> None:
        if line == "ready":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(WorkError, match="stopped after step 3"):
        local.launch_work(spec().work(), show)


def test_workers_that_refuse_end_a_scheduler_that_waits_for_ever(stub, monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(local, "_GRACE_SECONDS", 0.5)
    stub(
        f"""
        if os.environ["MS_ROLE"] == "MS_SCHED":
            Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
            time.sleep(600)
        leave(2, "unknown model")
        """
    )
    with pytest.raises(InputError, match="^unknown model$"):
        local.launch_work(spec(2).work(), lambda line: None)
    assert not running(int((tmp_path / "pid").read_text()))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)

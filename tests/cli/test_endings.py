"""Every end of a command: temporary folders, one line, the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import sys, time
from pathlib import Path
from kubeyolo.cli import app, streams
from kubeyolo.errors import WorkError
from kubeyolo.storage.workspace import temporary_folder

@app.app.command("work")
def work(seconds: float) -> None:
    with streams.stored_work(False), temporary_folder("work") as folder:
        for number in range(3):
            print("line", number, flush=True)
        (folder / "half").write_text("half a file")
        time.sleep(seconds)
    Path("stored").write_text("done")
    print("result")

app.main()
"""


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Return a function that starts a command which works in a temporary folder."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "program.py").write_text(PROGRAM)
    places = {"TMPDIR": str(tmp_path / "tmp"), "KUBEYOLO_CACHE": str(tmp_path / "cache")}
    environment = {**os.environ, **places, "PYTHONPATH": os.pathsep.join(sys.path)}

    def begin(seconds: str, **streams: Any) -> subprocess.Popen[str]:
        command = [sys.executable, "program.py", "work", seconds]
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **given)

    return begin


def wait_for_work(folder: Path) -> None:
    end = time.monotonic() + 60
    while not any(path.stat().st_size for path in (folder / "tmp").glob("*/half")):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGXCPU])
def test_a_command_that_is_told_to_end_leaves_nothing(start: Any, tmp_path: Path, number: signal.Signals) -> None:
    with start("60") as process:
        wait_for_work(tmp_path)
        process.send_signal(number)
        time.sleep(0.05)
        if number != signal.SIGINT:
            # As from a service manager; the cleaning up goes on.
            process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    (line,) = errors.splitlines()
    assert line.startswith(f"error: interrupted by {number.name};")
    assert list((tmp_path / "tmp").iterdir()) == [] and not (tmp_path / "stored").exists()


def test_under_nohup_a_command_outlives_its_terminal(start: Any, tmp_path: Path) -> None:
    with start("1", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        wait_for_work(tmp_path)
        process.send_signal(signal.SIGHUP)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-1] == "result" and (tmp_path / "stored").exists()


@pytest.mark.parametrize("way", ["closed pipe", "full disk", "closed stream"])
def test_stored_work_is_done_whatever_becomes_of_the_output(start: Any, tmp_path: Path, way: str) -> None:
    if way == "closed pipe":
        reader, output = os.pipe()
        os.close(reader)
        process = start("0", stdout=output)
        os.close(output)
    elif way == "full disk":
        with Path("/dev/full").open("wb") as full:
            process = start("0", stdout=full)
    else:
        process = start("0", stdout=None, preexec_fn=lambda: os.close(1))
    with process:
        _, errors = process.communicate(timeout=30)
    assert (tmp_path / "stored").read_text() == "done"
    assert list((tmp_path / "tmp").iterdir()) == []
    if way == "closed stream":
        # Whoever closes it does not want it.
        assert (process.returncode, errors) == (0, "")
        return
    assert process.returncode == 1
    first, last = errors.splitlines()
    assert first.startswith("warning: standard output: ") and "the work continues" in first
    assert last.startswith("error: standard output: ") and "the work is done and stored" in last


def test_a_full_disk_behind_standard_error_changes_nothing(start: Any, tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full, start("0", stdout=full, stderr=full) as process:
        assert process.wait(30) == 1
    assert (tmp_path / "stored").exists()

"""Runs commands on hostile input: each in a process of its own, with limits, forked from one that has the imports."""

from __future__ import annotations

import gc
import json
import os
import re
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 10
"""Seconds of processor that a command may take."""

MEMORY = 700
"""MB that a command may take."""

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that must not reach a terminal, besides line feeds and tabs."""

_LONGEST_LINE = 2000
_ADDRESSES = 6 << 30
_OUTPUTS = ("stdout", "stderr")


@dataclass(frozen=True)
class Ended:
    """How a command has ended.

    Attributes:
        code: Its exit code, or minus the number of the signal that ended it.
        stdout: Its standard output.
        stderr: Its standard error.
        seconds: Seconds of processor.
        memory: Largest resident memory in MB.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    memory: float

    def check(self, code: int) -> None:
        """Check what holds for every input: the exit code, one line for an error, and the limits."""
        lines = [line for line in self.stderr.split("\n") if line.strip()]
        assert self.code == code, f"exit code {self.code} instead of {code}: {self.stderr[-500:]}"
        assert "Traceback" not in self.stderr and "unexpected" not in self.stderr
        assert not CONTROL.search(self.stderr) and not CONTROL.search(self.stdout)
        assert self.seconds < SECONDS and self.memory < MEMORY
        assert all(len(line) <= _LONGEST_LINE for line in lines)
        if code:
            assert len(lines) == 1 and lines[0].startswith("error: ")


class Commands:
    """A process that has imported the command line, and forks for each command."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, arguments: list[str], folder: Path, work: Path) -> Ended:
        """Run a command.

        Args:
            arguments: The arguments of ``kubeyolo``.
            folder: The current folder of the command.
            work: A folder for its cache, its temporary files and its output streams.
        """
        assert self._process.stdin and self._process.stdout
        work.mkdir(exist_ok=True)
        question = {"arguments": arguments, "folder": str(folder), "work": str(work)}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        texts = [(work / name).read_bytes().decode("utf-8", "surrogateescape") for name in _OUTPUTS]
        return Ended(answer["code"], *texts, answer["seconds"], answer["memory"])

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer the questions of :class:`Commands`."""
    import typer

    import kubeyolo.report.dataset
    import kubeyolo.steps.facade  # noqa: F401 - the commands import it late
    from kubeyolo import source
    from kubeyolo.cli.app import app

    # What every command does first is done once.
    known: Any = typer.main.get_command(app)
    for name in ("validate", "anchors"):
        known.commands[name].load()
    known.commands["models"].commands["show"].load()
    source.results_source(), source.weights_source()
    gc.freeze()
    for line in sys.stdin:
        question = json.loads(line)
        child = os.fork()
        if child == 0:
            _command(question)
        killed_at = time.monotonic() + 6 * SECONDS
        while not (ended := os.wait4(child, os.WNOHANG))[0]:
            if time.monotonic() > killed_at:
                os.kill(child, 9)
            time.sleep(0.01)
        _, status, usage = ended
        seconds = usage.ru_utime + usage.ru_stime
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": seconds, "memory": usage.ru_maxrss / 1024}
        print(json.dumps(answer), flush=True)


def _command(question: dict[str, Any]) -> None:
    from kubeyolo.cli.app import main

    code = 99
    try:
        work = Path(question["work"])
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in enumerate(_OUTPUTS, 1):
            os.dup2(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(question["folder"])
        os.environ.update(KUBEYOLO_CACHE=str(work / "cache"), TMPDIR=str(work), OMP_NUM_THREADS="1")
        sys.argv = ["kubeyolo", *question["arguments"]]
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()

"""Work whose output cannot be written: it goes on, says so once, and knows what was lost."""

from __future__ import annotations

import errno
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kubeyolo.output_streams import ERRORS, OUTPUT, raw_stream, text_stream, why_lost


def test_an_error_has_the_name_of_the_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="No space left") as raised:
        print("line", file=text_stream(full.fileno(), OUTPUT, None), flush=True)
    assert raised.value.filename == OUTPUT
    assert capsys.readouterr().err == ""


def test_a_patient_stream_says_once_that_lines_are_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        stream = text_stream(full.fileno(), OUTPUT, None, patient=True)
        for _ in range(3):
            print("a line", file=stream, flush=True)
    raw = raw_stream(stream)
    assert raw is not None and raw.lost is not None and raw.lost.errno == errno.ENOSPC
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: standard output: No space left on device; the work continues, and output that is not printed is lost"
    )


def test_lines_are_written_again_once_there_is_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    full, descriptor = os.open("/dev/full", os.O_WRONLY), os.dup(target)
    stream = text_stream(descriptor, OUTPUT, None, patient=True)
    os.dup2(full, descriptor)
    print("lost", file=stream, flush=True)
    os.dup2(target, descriptor)
    print("kept", file=stream, flush=True)
    for each in (target, full, descriptor):
        os.close(each)
    assert (tmp_path / "log").read_text() == "kept\n"
    assert "lost" in capsys.readouterr().err


def test_a_pipe_without_reader_and_a_terminal_that_is_gone_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    reader, pipe = os.pipe()
    os.close(reader)
    ours, terminal = pty.openpty()
    os.close(ours)
    for descriptor, words in ((pipe, "closed by the program that reads it"), (terminal, "the terminal is gone")):
        stream = text_stream(descriptor, OUTPUT, None, patient=True)
        print("a line", file=stream, flush=True)
        raw = raw_stream(stream)
        assert raw is not None and raw.lost is not None and why_lost(raw.lost) == words
        os.close(descriptor)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_standard_error_is_lost_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        print("line", file=text_stream(full.fileno(), ERRORS, None, patient=True), flush=True)
    assert capsys.readouterr().err == ""


def test_a_pipe_that_somebody_made_non_blocking_is_waited_for() -> None:
    reader, pipe = os.pipe()
    os.set_blocking(pipe, False)
    read: list[bytes] = []

    def drain() -> None:
        while data := os.read(reader, 65536):
            read.append(data)

    stream = text_stream(pipe, OUTPUT, None)
    thread = threading.Timer(0.2, drain)
    thread.start()
    for _ in range(20_000):
        print("0123456789", file=stream)
    stream.flush()
    os.close(pipe)
    thread.join()
    os.close(reader)
    assert b"".join(read) == b"0123456789\n" * 20_000


PROGRAM = """
import sys
from kubeyolo.output_streams import patient_streams
with patient_streams():
    for _ in range(3):
        print("a line", flush=True)
    print("still here", file=sys.stderr, flush=True)
"""


def test_a_process_outlives_its_reader_and_ends_well() -> None:
    reader, pipe = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=pipe, stderr=subprocess.PIPE, text=True)
    os.close(pipe)
    assert done.returncode == 0
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["warning", "still here"]
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run([sys.executable, "-c", PROGRAM], stdout=full, stderr=full).returncode == 0

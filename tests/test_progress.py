"""Progress: a bar on a terminal, few plain lines elsewhere."""

from __future__ import annotations

import io
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from kubeyolo import progress as progress_module
from kubeyolo.progress import Progress, track


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_short_work_prints_nothing_off_a_terminal(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("checking images", 5, stream=stream) as progress:
        for _ in range(5):
            clock.now += 1
            progress.advance()
    assert stream.getvalue() == ""


def test_long_work_prints_a_line_every_ten_seconds_and_one_at_its_end(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("checking images", 250, stream=stream) as progress:
        for _ in range(250):
            clock.now += 0.125
            progress.advance()
    assert stream.getvalue().splitlines() == [
        "checking images: 80 of 250 (32 %), 8.0/s, 21 s left",
        "checking images: 160 of 250 (64 %), 8.0/s, 11 s left",
        "checking images: 240 of 250 (96 %), 8.0/s, 1.2 s left",
        "checking images: 250 of 250 (100 %), 8.0/s",
    ]


def test_bytes_are_told_in_megabytes_and_long_times_in_hours(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("fetching", 40_000_000_000, "bytes", stream=stream) as progress:
        clock.now += 10
        progress.advance(50_000_000)
    assert stream.getvalue().splitlines()[0] == "fetching: 50.0 MB of 40.0 GB (0 %), 5.00 MB/s, 2 h 13 min left"


def test_work_without_a_known_end_tells_what_is_done(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("reading", stream=stream) as progress:
        clock.now += 10
        progress.advance(7)
    assert stream.getvalue().splitlines() == ["reading: 7, 0.7/s"] * 2


def test_failed_work_prints_no_last_line(clock: Clock) -> None:
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress("reading", 10, stream=stream) as progress:
        clock.now += 10
        progress.advance(7)
        raise RuntimeError
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with Progress("checking images", 4, stream=stream) as progress:
        progress.advance(4)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = [line for line in re.split(r"[\r\n]", text) if line]
    shown = [re.sub("━+", "━", line).rpartition(" ")[0] for line in lines]
    # It is drawn anew as time passes.
    assert (shown[0], shown[-1]) == ("checking images ━ 0/4", "checking images ━ 4/4")


def test_a_bar_may_end_with_a_note_in_place_of_the_remaining_time() -> None:
    stream = Terminal()
    with Progress("training", 4, stream=stream, has_note=True) as progress:
        progress.advance(1)
        progress.note("12 min 05 s left, 2.10 GB of 16.0 GB memory")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    last = [line for line in re.split(r"[\r\n]", text) if line.strip()][-1]
    assert re.sub("[━╸╺]+", "━", last).split(" ━ ") == ["training", "1/4 12 min 05 s left, 2.10 GB of 16.0 GB memory"]
    with Progress("training", 4, stream=io.StringIO(), has_note=True) as progress:
        progress.note("nobody sees it")


def test_threads_count_together() -> None:
    with Progress("uploading", 4000, stream=io.StringIO()) as progress, ThreadPoolExecutor(4) as pool:
        for _ in range(4000):
            pool.submit(progress.advance)
    assert progress.done == 4000


def test_track_yields_what_it_is_given(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []
    for item in track([3, 1, 2], "sorting"):
        clock.now += 10
        seen.append(item)
    assert seen == [3, 1, 2]
    assert capsys.readouterr().err.splitlines()[0] == "sorting: 1 of 3 (33 %), 0.1/s, 20 s left"

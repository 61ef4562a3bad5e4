"""The remaining time and the memory of a training, in its bar or its log."""

from __future__ import annotations

import pytest

from kubeyolo.training import outlook
from kubeyolo.training.loop_parts import Moment
from kubeyolo.training.outlook import Outlook, RemainingTime, outlook_text


def test_the_remaining_time_is_that_of_the_recent_steps_and_leaves_out_the_first() -> None:
    remaining = RemainingTime(10_000)
    now = 1000.0  # The first step has taken this long.
    remaining.count(1, now)
    assert remaining.seconds(1, now) is None
    for step in range(2, 1001):
        now += 1.0
        remaining.count(step, now)
    assert remaining.seconds(1000, now) == pytest.approx(9000, rel=0.01)
    for step in range(1001, 1401):
        now += 4.0
        remaining.count(step, now)
    assert remaining.seconds(1400, now) == pytest.approx(4 * 8600, rel=0.02)
    assert remaining.seconds(10_000, now) == 0


def test_short_steps_keep_few_values() -> None:
    remaining = RemainingTime(1_000_000)
    for step in range(1, 100_001):
        remaining.count(step, step / 100)
    assert remaining.seconds(100_000, 1000.0) == pytest.approx(9000, rel=0.01)
    assert len(remaining._recent) <= outlook.RECENT_SECONDS + 3


def test_texts_name_what_is_known() -> None:
    assert outlook_text(725.0, 2_100_000_000, 16_000_000_000) == "12 min 05 s left, 2.10 GB of 16.0 GB memory"
    assert outlook_text(None, 500_000_000, None) == "500 MB memory"
    assert outlook_text(4.0, 0, 16_000_000_000) == "4.0 s left"


def moments(total: int) -> list[Moment]:
    return [Moment(step, 0, step == total, step == total) for step in range(1, total + 1)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of the module, in a list of one element; the memory is fixed."""
    now = [50.0]
    monkeypatch.setattr(outlook.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(outlook, "memory_of", lambda pid: 1_500_000_000)
    monkeypatch.setattr(outlook, "usable_memory", lambda: 8_000_000_000)
    return now


def test_a_log_has_a_line_after_a_minute_and_then_every_five_minutes(clock: list[float]) -> None:
    lines: list[str] = []
    part = Outlook(100, lines.append)
    for moment in moments(100):
        part.after_step(moment)
        clock[0] += 10
    assert lines == [
        "training: 7 % done, 15 min 30 s left, 1.50 GB of 8.00 GB memory",
        "training: 37 % done, 10 min 30 s left, 1.50 GB of 8.00 GB memory",
        "training: 67 % done, 5 min 30 s left, 1.50 GB of 8.00 GB memory",
        "training: 97 % done, 30 s left, 1.50 GB of 8.00 GB memory",
    ]


def test_a_short_training_has_no_line_and_a_bar_takes_the_text_in_place_of_lines(clock: list[float]) -> None:
    lines: list[str] = []
    part = Outlook(5, lines.append)
    for moment in moments(5):
        part.after_step(moment)
        clock[0] += 10
    assert lines == []
    notes: list[str] = []
    part = Outlook(5, lines.append, notes.append)
    for moment in moments(5):
        part.after_step(moment)
        clock[0] += 1
    assert lines == [] and notes == ["2.0 s left, 1.50 GB of 8.00 GB memory"]

"""Events and lines of steps, told apart from what kfp prints between them."""

from __future__ import annotations

import io

from kubeyolo.events import Event, parse_event
from kubeyolo.runs.watch import StepLines


def watched(text: str, piece: int = 7) -> tuple[list[Event], list[str], str]:
    events: list[Event] = []
    lines: list[str] = []
    log = io.StringIO()
    stream = StepLines(log, events.append, lines.append)
    for start in range(0, len(text), piece):
        stream.write(text[start : start + piece])
    return events, lines, log.getvalue()


def test_an_event_survives_its_line() -> None:
    event = Event("failed", "train", {"message": 'a "quoted"\nline', "exit_code": 2})
    assert "\n" not in event.line()
    assert parse_event("    " + event.line() + "\n") == event


def test_other_lines_are_no_events() -> None:
    for line in ("hello", "::kubeyolo:: {", "::kubeyolo:: []", '::kubeyolo:: {"event": "danced", "step": "train"}'):
        assert parse_event(line) is None


def test_only_the_lines_of_a_running_step_are_passed_on() -> None:
    text = (
        "00:08:44.476 - INFO - Running pipeline\n    noise before\n"
        f"    {Event('started', 'train').line()}\n"
        "    [KFP Executor 2026-11-21 INFO]: Got executor_input:\n"
        "    epoch[0], iter[2]\n    [WARNING] ME(1): something\n        indented\n\n"
        f"    {Event('finished', 'train').line()}\n    noise after\n"
    )
    events, lines, log = watched(text)
    assert [event.kind for event in events] == ["started", "finished"]
    assert lines == ["epoch[0], iter[2]", "    indented"]
    assert log == text


def test_stacks_go_to_the_log_alone() -> None:
    text = (
        f"{Event('started', 'train').line()}\nfirst\nTraceback (most recent call last):\n  File x\nKeyError: 'a'\n"
        f"{Event('failed', 'train').line()}\n{Event('started', 'evaluate').line()}\nsecond\n"
    )
    _, lines, log = watched(text)
    assert lines == ["first", "second"]
    assert "KeyError" in log

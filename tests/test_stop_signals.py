"""Signals that tell a process to end: which ones, how many orders they are, and what is raised."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from kubeyolo import stop_signals
from kubeyolo.stop_signals import RaisingHandler, StopOrder, StopSignal, announcing, handling


@pytest.fixture(autouse=True)
def sighup() -> Iterator[None]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose one number is the time."""
    now = [100.0]
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: now[0])
    return now


def test_a_sighup_that_nohup_has_ignored_is_left_alone() -> None:
    batch = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU}
    assert set(stop_signals.stop_signals()) == {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *batch}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert set(stop_signals.stop_signals()) == {signal.SIGINT, signal.SIGTERM, *batch}


@pytest.mark.parametrize(
    ("numbers", "seconds", "second"),
    [
        ((signal.SIGINT, signal.SIGINT), 0.6, True),
        ((signal.SIGTERM, signal.SIGINT), 0.6, True),
        # From the terminal and from the run; from a terminal that closes; from a service manager, twice.
        ((signal.SIGINT, signal.SIGINT), 0.4, False),
        ((signal.SIGHUP, signal.SIGTERM), 5.0, False),
        ((signal.SIGHUP, signal.SIGHUP), 0.1, False),
        ((signal.SIGTERM, signal.SIGTERM), 5.0, False),
    ],
)
def test_a_second_order_is_a_ctrl_c_after_half_a_second(
    clock: list[float], numbers: tuple[int, int], seconds: float, second: bool
) -> None:
    order = StopOrder()
    assert not order.is_second(numbers[0]) and order.given
    clock[0] += seconds
    assert order.is_second(numbers[1]) is second


def test_the_cleaning_up_is_interrupted_by_a_ctrl_c_alone(clock: list[float]) -> None:
    handler = RaisingHandler()
    with pytest.raises(StopSignal) as raised:
        handler(signal.SIGTERM, None)
    assert raised.value.number == signal.SIGTERM
    clock[0] += 0.3
    handler(signal.SIGHUP, None)
    handler(signal.SIGINT, None)
    clock[0] += 0.3
    with pytest.raises(StopSignal):
        handler(signal.SIGINT, None)
    # An error that somebody has swallowed does not make a process immortal.
    clock[0] += 2.1
    with pytest.raises(StopSignal):
        handler(signal.SIGTERM, None)


def test_the_handlers_of_before_are_there_again_after_the_block() -> None:
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with handling(lambda number, frame: seen.append(number)):
        for number in numbers:
            os.kill(os.getpid(), number)
    assert seen == list(numbers)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_handler_may_announce_while_the_main_thread_prints() -> None:
    lines: list[str] = []

    def show(line: str) -> None:
        time.sleep(0.05)
        lines.append(line)

    with announcing(show) as announce, handling(lambda number, frame: announce("stopping")):
        os.kill(os.getpid(), signal.SIGTERM)
        assert lines == []
    assert lines == ["stopping"]

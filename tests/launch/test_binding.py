"""Binding of processes to processors."""

from __future__ import annotations

import json
import os

import pytest

from kubeyolo.errors import InputError
from kubeyolo.launch import binding
from kubeyolo.launch.binding import binding_options, equal_shares, ranges
from kubeyolo.training.distribution import threads_for
from kubeyolo.work import BOUND, Work

WORK = Work(
    step="train", name="train", module="m", document="{}", output="o", processes=2, memory_remedy="", bind_core=True
)


def with_processors(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {*numbers})


def test_processes_are_not_bound_by_default() -> None:
    assert binding_options(WORK.model_copy(update={"bind_core": False}), 2) == []


def test_each_process_gets_an_equal_share_of_adjacent_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    with_processors(monkeypatch, 0, 1, 2, 3, 8, 9, 10, 11)
    [option] = binding_options(WORK, 3)
    assert json.loads(option.removeprefix("--bind_core=")) == {
        "device0": ["0-1"],
        "device1": ["2-3", "8-8"],
        "device2": ["9-11"],
    }


def test_msrun_chooses_the_processors_next_to_the_devices() -> None:
    assert binding_options(WORK.model_copy(update={"device_target": "Ascend"}), 8) == ["--bind_core=True"]


def test_shares_have_every_processor_once() -> None:
    shares = equal_shares(range(10, 27), 5)
    assert [number for share in shares for number in share] == list(range(10, 27))
    assert {len(share) for share in shares} == {3, 4}
    assert ranges([7]) == ["7-7"] and ranges([]) == []


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("processors", "2 processes on this machine may use only 1 processor; train fewer processes"),
        ("msrun", "msrun of the installed MindSpore has no option --bind_core"),
        ("taskset", "the program taskset, with which msrun binds processes, is not installed"),
    ],
)
def test_what_cannot_be_bound_is_refused(broken: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_processors(monkeypatch, 5)
    if broken == "msrun":
        monkeypatch.setattr(binding, "OPTION", "--bind_cores")
        expected = expected.replace("--bind_core", "--bind_cores")
    if broken == "taskset":
        monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=expected):
        binding_options(WORK, 2)


def test_a_bound_process_uses_all_of_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    with_processors(monkeypatch, *range(64))
    monkeypatch.setattr("kubeyolo.training.distribution.usable_processors", lambda: 12)
    assert threads_for(4) == 3
    monkeypatch.setenv(BOUND, "1")
    assert threads_for(4) == 12

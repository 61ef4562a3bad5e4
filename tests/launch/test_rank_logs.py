"""The log lines of several processes: what is shown, and the merged log in the output."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubeyolo.launch import rank_logs
from kubeyolo.launch.rank_logs import MOST_SHOWN, RankLogs, StoredLog


def write(folder: Path, rank: int, text: str) -> None:
    with (folder / f"worker_{rank}.log").open("a") as file:
        file.write(text)


def test_the_first_rank_is_shown_whole_and_of_others_only_warnings_and_errors(tmp_path: Path) -> None:
    shown: list[str] = []
    logs = RankLogs(tmp_path, range(2, 5), shown.append)
    logs.poll()
    write(tmp_path, 2, "step 1\n[INFO] PS(1): noise\nstep")
    write(tmp_path, 3, "step 1\nwarning: disk is slow\nwarning: disk is slow\n")
    write(tmp_path, 4, "[ERROR] DEVICE(7): card lost\nnothing new about errors\nValueError: no value\n")
    logs.poll()
    write(tmp_path, 2, " 2\n")
    logs.poll()
    assert shown == [
        "step 1",
        "rank 3: warning: disk is slow",
        "rank 4: [ERROR] DEVICE(7): card lost",
        "rank 4: ValueError: no value",
        "step 2",
    ]
    assert list(logs.last) == ["step 1", "step 2"]


def test_a_rank_with_many_warnings_does_not_flood_the_log(tmp_path: Path) -> None:
    shown: list[str] = []
    stored = StoredLog(str(tmp_path / "output"), 0, 1, shown.append)
    logs = RankLogs(tmp_path, range(2), shown.append, stored)
    for number in range(100):
        write(tmp_path, 1, f"warning: number {number}\n")
        logs.poll()
    assert shown[:-1] == [f"rank 1: warning: number {number}" for number in range(MOST_SHOWN)]
    assert shown[-1] == f"rank 1: more warnings and errors follow, see {stored.uri}"


def test_lines_of_all_ranks_are_stored_by_time_after_those_of_earlier_launches(tmp_path: Path) -> None:
    output = tmp_path / "output"
    for launch in (1, 2):
        folder = tmp_path / str(launch)
        folder.mkdir()
        stored = StoredLog(str(output), 0, 1, print)
        logs = RankLogs(folder, range(2), lambda line: None, stored)
        for rank in (1, 0):
            write(folder, rank, f"launch {launch}\n")
            logs.poll()
        stored.write()
    lines = (output / "logs" / "ranks.log").read_text().splitlines()
    matches = [re.fullmatch(r"(\d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d) (rank \d: launch \d)", line) for line in lines]
    times = [match[1] for match in matches if match]
    assert [match[2] for match in matches if match] == [
        *("rank 1: launch 1", "rank 0: launch 1", "rank 1: launch 2", "rank 0: launch 2")
    ]
    assert times == sorted(times)


def test_the_stored_log_keeps_its_newest_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_logs, "MOST_BYTES", 400)
    for number in range(2):
        stored = StoredLog(str(tmp_path), 1, 2, print)
        stored.add([f"line {10 * number + each}" for each in range(8)])
        stored.write()
    text = (tmp_path / "logs" / "ranks-1.log").read_text()
    assert len(text) <= 400 and text.endswith("line 17\n")
    assert text.startswith("20") and "line 0\n" not in text and "line 10\n" in text
    stored = StoredLog(str(tmp_path), 1, 2, print)
    stored.add([f"line {20 + each}" for each in range(100)])
    stored.write()
    text = (tmp_path / "logs" / "ranks-1.log").read_text()
    assert len(text) <= 400 and "line 17\n" not in text and text.endswith("line 119\n")


def test_a_store_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "logs").write_text("a file in place of the folder")
    shown: list[str] = []
    stored = StoredLog(str(tmp_path / "output"), 0, 1, shown.append)
    stored.add(["line"])
    stored.write()
    [line] = shown
    assert line.startswith("warning: the log of all processes is not stored: ")

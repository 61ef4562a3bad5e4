"""How the end of a process is told: as it is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo import exits


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exit code 0"),
        (3, "exit code 3"),
        (-9, "killed by SIGKILL"),
        (-63, "killed by signal 63"),
        (137, "exit code 137, as after SIGKILL"),
        (250, "exit code 250"),
    ],
)
def test_an_end_is_a_code_or_a_signal(code: int, words: str) -> None:
    assert exits.ending(code) == words


def test_a_lack_of_memory_is_told_where_the_kernel_has_counted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(exits, "_VMSTAT", counts)
    assert exits.memory_kills() == 0
    counts.write_text("nr_free_pages 7\noom_kill 3\n")
    before = exits.memory_kills()
    assert exits.killed_for_memory(before) == ""
    counts.write_text("nr_free_pages 7\noom_kill 5\n")
    assert "has killed 2 processes here for lack of memory" in exits.killed_for_memory(before)

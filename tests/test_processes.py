"""How the end of a process is told: as it is known."""

from __future__ import annotations

import pytest

from kubeyolo import processes


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
    assert processes.ending(code) == words

"""Two processes with synchronized statistics train as one for 50 steps, in every family."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.runtime import configure_mindspore
from tests.training.synchronized import FAMILIES, check_two_processes


@pytest.mark.timeout(3600)
def test_two_processes_train_as_one_for_50_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_mindspore("CPU", 1)
    check_two_processes(FAMILIES, 50, tmp_path, monkeypatch)

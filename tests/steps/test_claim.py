"""One training of an output at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.errors import WorkError
from kubeyolo.steps.claim import claimed


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path))


def test_a_held_output_is_refused_with_its_process() -> None:
    with (
        claimed("file:///store/a"),
        pytest.raises(WorkError, match=rf"file:///store/a: process {os.getpid()} is training there"),
        claimed("file:///store/a", patience=0.3),
    ):
        pass


def test_other_outputs_and_later_ones_are_free() -> None:
    with claimed("file:///store/a"), claimed("file:///store/b", patience=0):
        pass
    with claimed("file:///store/a", patience=0):
        pass

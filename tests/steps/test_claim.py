"""One training of an output at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.steps.claim import claimed

OUTPUT = "file:///store/a"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path))


HOLDER = """
import sys, time
from kubeyolo.steps.claim import claimed
with claimed(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, OUTPUT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_output_is_waited_for_until_its_holder_has_died(
    holder: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    threading.Timer(1.0, holder.kill).start()
    with claimed(OUTPUT, say_seconds=0.3):
        assert holder.poll() is not None or holder.wait(10) is not None
    lines = capsys.readouterr().out.splitlines()
    assert set(lines) == {f"waiting for process {holder.pid}, which is training at {OUTPUT}"}
    assert 2 <= len(lines) <= 6


def test_nothing_of_the_step_is_touched_before_the_output_is_free(
    holder: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubeyolo.steps import pretrain, train

    def refuse() -> None:
        raise InputError("begun")

    for step in (pretrain.pretrain_backbone, train.train):
        done: list[str] = []

        def call(step: Any = step, done: list[str] = done) -> None:
            try:
                step("absent", OUTPUT, load_config(), begin=refuse)
            except InputError as error:
                done.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join(1.0)
        if step is pretrain.pretrain_backbone:
            assert done == []
            holder.kill()
        thread.join(20)
        assert done == ["begun"]


def test_other_outputs_and_later_ones_are_free() -> None:
    with claimed(OUTPUT), claimed("file:///store/b"):
        pass
    with claimed(OUTPUT):
        pass

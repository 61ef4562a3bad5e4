"""A training goes from one process to two and back: the same images in each step, and the same weights at the end."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.launch import local
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import newest_checkpoint
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.history import TrainingHistory
from kubeyolo.work import Work
from tests.training.redistributed import MODULE, train

ROOT = Path(__file__).parents[2]
DELAY = 0.5


def document(dataset: str, output: Path, steps: int, delay: float = 0.0) -> dict[str, Any]:
    return {"dataset": dataset, "output": str(output), "steps": steps, "delay": delay}


def images(output: Path, *names: str) -> list[list[int]]:
    """Return the images of each step, those of the ranks joined in order."""
    texts = [(output / f"images-{name}.jsonl").read_text() for name in names]
    ranks = [[json.loads(line) for line in text.splitlines()] for text in texts]
    return [[image for part in parts for image in part] for parts in zip(*ranks, strict=True)]


@pytest.fixture(scope="module")
def launched(small_dataset: str, mindspore_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two outputs, one of a single session and one of three, and the lines of the session with two processes."""
    whole, parts = (tmp_path_factory.mktemp(name) for name in ("whole", "parts"))
    train(document(small_dataset, whole, 14), Distribution())
    lines: list[str] = []
    train(document(small_dataset, parts, 4), Distribution())
    work = Work(
        step="train",
        name="train",
        module=MODULE,
        document=json.dumps(document(small_dataset, parts, 10, DELAY)),
        output=str(parts),
        processes=2,
        memory_remedy="",
        has_checkpoints=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "WORKER_MODULES", {MODULE})
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        local.launch_work(work, lines.append)
    train(document(small_dataset, parts, 14), Distribution())
    return whole, parts, lines


def test_each_step_has_the_same_images(launched: Any) -> None:
    whole, parts, _ = launched
    alone = images(parts, "1-0")
    assert alone[:4] + images(parts, "2-0", "2-1") + alone[4:] == images(whole, "1-0")


def test_losses_and_weights_continue(launched: Any) -> None:
    states = [newest_checkpoint(Place.of(output).store, print) for output in launched[:2]]
    assert all(state is not None and state.step == 14 for state in states)
    first, second = (state.weights for state in states if state)
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    histories = [TrainingHistory.from_bytes(state.history) for state in states if state]
    losses = [{row.step: row.loss for row in history.of("train")} for history in histories]
    # The loss in the log is that of the images of rank 0, so it differs while there are two processes.
    alone = [step for step in losses[0] if step <= 4 or step > 10]
    assert len(alone) == 4 and losses[0].keys() == losses[1].keys()
    for step in alone:
        assert losses[1][step] == pytest.approx(losses[0][step], rel=1e-4)


def test_a_rank_whose_batches_come_late_is_named_once(launched: Any) -> None:
    # Both ranks print here; the lines of rank 1 are shown with its number, and only if they are warnings or errors.
    own, passed_on = sorted(line for line in launched[2] if "is slower than the others" in line)[::-1]
    assert own.startswith(f"warning: rank 1 on {os.uname().nodename} is slower than the others")
    assert "raise data.workers" in own
    assert passed_on.startswith("rank 1: warning: rank 1 on ")


def test_the_lines_of_both_ranks_are_in_the_log_of_the_output(launched: Any) -> None:
    _, parts, lines = launched
    text = (parts / "logs" / "ranks.log").read_text()
    steps = [line for line in lines if line.startswith("epoch[")]
    assert len(steps) == 3
    for rank in (0, 1):
        assert sum(f" rank {rank}: epoch[" in line for line in text.splitlines()) == 3

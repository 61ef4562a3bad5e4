"""Trainings with all sizes of each system: compilations, two processes, and interruptions; `make accept` runs them."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.data.sampler import SizeSchedule
from kubeyolo.launch import local
from kubeyolo.models.named_facts import model_facts
from kubeyolo.runtime import configure_mindspore
from kubeyolo.storage.place import Place
from kubeyolo.training.loop import Hooks, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from tests.accept import sized_worker
from tests.training.killing import has_checkpoint, history_of, launch_until, weights_of, writes_checkpoint
from tests.training.small_training import spec_for
from tests.training.tiny_detector import STEPS_PER_EPOCH, rendered_loader, tiny_engine

pytestmark = pytest.mark.timeout(4 * 3600)

ASKED = os.environ.get("MODEL", "").split()
BASES = {"yolov3": 416, "yolov4": 416, "yolov5s": 640, "yolov5n-r7": 416, "yolov4-p5": 416, "yolov4-p6": 640}


@pytest.mark.parametrize("model", [model for model in BASES if not ASKED or model in ASKED])
def test_each_size_of_a_system_is_compiled_once(model: str, tmp_path: Path) -> None:
    configure_mindspore("CPU", 1)
    facts, base = model_facts(model), BASES[model]
    schedule = SizeSchedule(facts.training_sizes(base), 1, seed=7)
    last = next(step for step in count(1) if len(schedule.between(0, step)) == len(schedule.sizes))
    epochs = max(-(-last // STEPS_PER_EPOCH), 15)
    engine = tiny_engine(facts, base, epochs)
    settings = LoopSettings(epochs * STEPS_PER_EPOCH, 4, log_interval=10, sizes=schedule)
    lines: list[str] = []
    with rendered_loader(base, schedule) as loader:
        loop = TrainingLoop(engine, loader, settings, Output(Place.of(tmp_path), {}), Hooks(show=lines.append))
        loop.run()
    print("\n".join(lines))
    result = engine.compilations.result
    assert result.graphs == len(schedule.sizes) and {*result.seconds} == {*schedule.sizes}
    assert sum(line.startswith("compiling the graph for images of") for line in lines) == len(schedule.sizes)
    losses = [row.loss for row in loop.journal.history.of("train") if row.loss is not None]
    assert np.mean(losses[-2:]) < 0.8 * np.mean(losses[:2]), losses


def test_two_processes_have_the_same_sizes_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, root = sized_worker.__name__, str(Path(local.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("kubeyolo.training.spec.WORKER_MODULE", module)
    monkeypatch.setattr(local, "WORKER_MODULES", {module})
    config = Config(train=TrainConfig(processes=2))
    local.launch_work(TrainingSpec(dataset="none", output=str(tmp_path), config=config).work(), print)
    first, second = (json.loads((tmp_path / f"sizes-{rank}.json").read_text()) for rank in range(2))
    assert first == second and len(first["sizes"]) == sized_worker.STEPS
    assert first["graphs"] == len({*first["sizes"]}) == 11
    weights = [dict(np.load(tmp_path / f"weights-{rank}.npz")) for rank in range(2)]
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name], err_msg=name)


def test_a_run_with_several_sizes_that_is_killed_ends_with_the_same_weights(small_dataset: str, tmp_path: Path) -> None:
    sizes: dict[str, object] = {"multi_scale": True, "sizes": [64, 96, 128], "resize_rate": 2, "nominal_batch": 12}
    whole, killed = (spec_for(small_dataset, tmp_path / name, "yolov4-tiny", **sizes) for name in ("whole", "killed"))
    lines = launch_until(whole)
    assert any(line.startswith("compiled 3 graphs for 3 sizes (64, 96, 128 px) in") for line in lines), lines
    launch_until(killed, has_checkpoint(3))
    launch_until(killed, writes_checkpoint(12))
    launch_until(killed)
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")
    assert history_of(tmp_path / "killed") == history_of(tmp_path / "whole")
    result = read_result(Place.of(tmp_path / "whole").store).compiled
    assert result is not None and result.graphs == 3 and {*result.seconds} == {64, 96, 128}

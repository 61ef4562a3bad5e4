"""A training whose graphs are loaded from disk has the same arrays, bit for bit, as one that compiles them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kubeyolo.config.load import load_config
from kubeyolo.training.spec import TrainingSpec, training_identity
from tests.alone import ROOT
from tests.training.stored_graphs import Arrays, trained


def in_a_process(folder: Path, output: Path, seed: int) -> tuple[Arrays, list[int]]:
    """Return the arrays of a training, and how many of its graphs were compiled, loaded, or not stored."""
    command = [sys.executable, "-m", "tests.training.stored_graphs", str(folder), str(output), str(seed)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    arrays = dict(np.load(output))
    return arrays, arrays.pop("graphs").tolist()


def test_every_array_is_that_of_a_compiled_training(tmp_path: Path, mindspore_ready: None) -> None:
    folder = tmp_path / "graphs"
    # The training that stores the graphs starts from other weights, also in the frozen layers.
    _, counts = in_a_process(folder, tmp_path / "first.npz", seed=0)
    assert counts == [5, 0, 0]
    loaded, counts = in_a_process(folder, tmp_path / "second.npz", seed=1)
    assert counts == [0, 5, 0]
    compiled = trained(None, 0, seed=1) | trained(None, 6, seed=1)
    assert compiled.keys() == loaded.keys() and any("5.moving_variance" in name for name in compiled)
    for name, array in compiled.items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


def settings(model: str, *pairs: str, dataset: str = "digest") -> dict[str, Any]:
    from kubeyolo.training.compile_cache import graph_settings

    spec = TrainingSpec(dataset="d", output="o", config=load_config(model, sets=list(pairs)))
    return graph_settings(training_identity(spec, dataset, "", world=1))


def test_graphs_depend_on_every_setting_that_is_not_one_of_their_inputs(mindspore_ready: None) -> None:
    usual = settings("yolov5n-r7")
    inputs = (
        "train.lr=0.5",
        "train.seed=9",
        "train.max_epoch=7",
        "augment.mosaic=0",
        "train.patience=3",
        "data.split=0.3",
    )
    assert all(settings("yolov5n-r7", pair) == usual for pair in inputs)
    others = (
        *("train.box_gain=0.1", "train.anchor_t=3", "train.freeze=backbone", "train.momentum=0.8", "train.grad_clip=1"),
        *("train.optimizer=adamw", "train.nominal_batch=0", "train.weight_decay=0.1", "train.label_smooth_factor=0.1"),
        *("train.per_batch_size=3", "train.image_size=320", "train.loss_scale=2", "train.nesterov=false"),
    )
    for pair in others:
        assert settings("yolov5n-r7", pair) != usual, pair
    assert settings("yolov5s-r7") != usual and settings("yolov5n-r7", dataset="other") != usual


def test_graphs_that_were_not_used_for_the_longest_time_are_removed(tmp_path: Path, mindspore_ready: None) -> None:
    from kubeyolo.training.compile_cache import remove_oldest

    for age, name in enumerate("dbca"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "graph.mindir").write_bytes(bytes(40))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "program.hash").write_text("0")
    remove_oldest(tmp_path, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "d", "program.hash"]

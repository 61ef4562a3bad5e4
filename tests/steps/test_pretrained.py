"""The record, the report and the model card of a pretraining: top-1, and top-5 with more than 5 classes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kubeyolo.bundle import WEIGHTS, BundleManifest
from kubeyolo.config.schema import Config
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import publish_bundle
from kubeyolo.report.model_card import model_card
from kubeyolo.steps.pretrain import pretrain_backbone
from kubeyolo.storage.place import Place
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.result import RESULT_NAME, TrainingResult
from kubeyolo.training.spec import TrainingSpec


def finished_pretraining(output: Path, rows: list[HistoryRow]) -> None:
    """Write what the training process leaves in its output."""
    facts = model_facts("yolov5n-r7")
    save_file({"backbone.w": np.zeros(1, np.float32)}, output.parent / WEIGHTS)
    manifest = BundleManifest(
        kind="backbone",
        model="yolov5n-r7",
        classes=("a", "b"),
        image_size=(96, 96),
        strides=facts.strides,
        anchors=facts.anchors,
    )
    bundle = publish_bundle(Place.of(output / "bundle"), manifest, {WEIGHTS: output.parent / WEIGHTS})
    result = TrainingResult(identity={}, code_digest="", steps=40, bundle=bundle.uri, seconds=1, resumed_at=[])
    (output / RESULT_NAME).write_text(result.model_dump_json())
    (output / FILE_NAME).write_bytes(TrainingHistory(rows).to_bytes())


@pytest.mark.parametrize("top5", [None, 0.875])
def test_top_5_is_in_record_and_report_if_it_was_measured(tmp_path: Path, top5: float | None) -> None:
    output = tmp_path / "output"
    output.mkdir()
    measured = [
        HistoryRow(kind="pretrain", step=step, epoch=step // 20 - 1, accuracy=0.5, top5=top5) for step in (20, 40)
    ]
    logged = [HistoryRow(kind="pretrain", step=step, epoch=0, loss=1.0, lr=0.1) for step in (10, 30)]
    finished_pretraining(output, sorted([*measured, *logged], key=lambda row: row.step))
    config = Config.model_validate({"model": "yolov5n-r7", "pretrain": {"data": "images"}})
    spec = TrainingSpec(task="backbone", dataset="images", output=str(output), config=config)
    launcher: Any = SimpleNamespace(launch=lambda work: None)
    outcome = pretrain_backbone(spec, SimpleNamespace(), Place.of(output), launcher)  # type: ignore[arg-type]
    assert outcome.metrics["accuracy"] == 0.5 and outcome.metrics.get("top5") == top5
    assert "Top-1" in outcome.html and ("Top-5" in outcome.html) == (top5 is not None)
    assert ("top-5" in outcome.html) == (top5 is not None)


def test_the_card_of_a_detector_has_the_accuracy_of_its_backbone() -> None:
    manifest: dict[str, Any] = {"model": "yolov5n-r7", "config": {"train": {"lr": 0.01}}, "classes": ["a"]}
    card = model_card({**manifest, "metrics": {"pretrain": {"accuracy": 0.75, "top5": 0.9375}}}, {})
    assert "| top-1 of the pretrained backbone | 0.750 |" in card
    assert "| top-5 of the pretrained backbone | 0.938 |" in card
    assert "pretrained backbone" not in model_card(manifest, {})
    few = model_card({**manifest, "metrics": {"pretrain": {"accuracy": 0.75}}}, {})
    assert "top-1 of" in few and "top-5 of" not in few


def test_a_history_of_an_earlier_version_is_read() -> None:
    (row,) = TrainingHistory.from_bytes(b'{"kind":"pretrain","step":20,"epoch":0,"accuracy":0.25}\n').rows
    assert (row.accuracy, row.top5) == (0.25, None)

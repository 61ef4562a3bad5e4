"""From the warning to the boxes: the command that is named, its setting, a training with it, and its networks."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kubeyolo.bundle import ONNX, WEIGHTS, open_bundle
from kubeyolo.cli.app import main
from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.evaluation.decode import decode
from kubeyolo.evaluation.network import load_network
from kubeyolo.evaluation.predictor import load_predictor
from kubeyolo.evaluation.split_evaluation import evaluate_split
from kubeyolo.export.onnx import export_onnx
from kubeyolo.launch.local import launch_work
from kubeyolo.models.anchors import trained_facts
from kubeyolo.models.named_facts import model_facts
from kubeyolo.publishing import derive_bundle
from kubeyolo.storage.place import Place
from kubeyolo.training.anchor_search import find_anchors
from kubeyolo.training.detector import train_detector
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.learnable import Learnable, look_at_training
from kubeyolo.training.loop import StopRequest
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec

MODEL, SIZE = "yolov5n-r7", 64
SIDES = ((3, 3), (60, 5), (54, 4), (62, 5), (44, 3))
"""Boxes that no anchor of the model fits at this size."""
SETTINGS = (
    "data.workers=0",
    f"train.image_size={SIZE}",
    "train.per_batch_size=4",
    "train.max_epoch=2",
    "train.warmup_steps=1",
    "train.lr=0.05",
    "train.ema_tau=1",
    "train.val_interval=2",
    "evaluate.conf_threshold=0",
    "evaluate.max_det=20",
)


def draw(folder: Path) -> Path:
    """Write a data set of bars and dots on grey images."""
    random = np.random.default_rng(0)
    (folder / "annotations").mkdir(parents=True)
    for split, images in (("train", 12), ("val", 3)):
        (folder / split).mkdir()
        document: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bar"}]}
        for number in range(images):
            pixels = np.full((SIZE, SIZE, 3), 90 + number, np.uint8)
            for width, height in SIDES * 2:
                x, y = (int(random.integers(0, SIZE - side + 1)) for side in (width, height))
                pixels[y : y + height, x : x + width] = (250, 240, 10)
                box = {"id": len(document["annotations"]) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0}
                document["annotations"].append({**box, "bbox": [x, y, width, height], "area": width * height})
            name = f"{number}.png"
            cv2.imwrite(str(folder / split / name), pixels)
            document["images"].append({"id": number + 1, "file_name": name, "width": SIZE, "height": SIZE})
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bars with a space")
    return write_dataset(draw(folder / "source"), Place.of(folder / "store")).uri


def spec_for(dataset: str, output: Path, *sets: str) -> TrainingSpec:
    return TrainingSpec(dataset=dataset, output=str(output), config=load_config(MODEL, sets=[*SETTINGS, *sets]))


def rows_of(output: Path, kind: str) -> list[HistoryRow]:
    return TrainingHistory.from_bytes((output / FILE_NAME).read_bytes()).of(kind)


def looked_at(dataset: str, config: Config) -> Learnable:
    """Return what a training says of its boxes before the first step."""
    return look_at_training(open_dataset(Place.of(dataset)).index("train"), trained_facts(config), config, 3, dataset)


def typed(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Call a command line as a shell would, and return what it prints."""
    name, *arguments = shlex.split(line)
    assert name == "kubeyolo"
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out


@pytest.fixture(scope="module")
def trained(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a training with anchors that are computed for it."""
    output = tmp_path_factory.mktemp("trained")
    spec = spec_for(dataset, output)
    found = find_anchors(open_dataset(Place.of(dataset)).index("train"), spec.config)
    launch_work(spec_for(dataset, output, f"train.anchors={anchors_text(found.computed.anchors)}").work())
    return output


def test_the_command_that_the_warning_names_prints_the_setting_that_fits(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = looked_at(dataset, load_config(MODEL, sets=SETTINGS))
    (warning,) = (line for line in before.warnings if line.startswith("no anchor fits"))
    command = warning[warning.index("'kubeyolo anchors") + 1 : warning.index("' computes anchors that fit")]
    printed = typed(command, capsys)
    (line,) = (line for line in printed.splitlines() if line.startswith("to train with"))
    option, setting = shlex.split(line.partition(": ")[2])
    document = json.loads(typed(f"{command} --json", capsys))
    assert option == "--set" and document["setting"] == setting
    assert (document["own"]["recall"], document["computed"]["recall"]) == (before.recall, 1.0)
    after = looked_at(dataset, load_config(MODEL, sets=[*SETTINGS, setting]))
    assert before.recall == 0.0 and after.recall == 1.0
    assert not any("no anchor fits" in line for line in after.warnings)


def test_a_training_with_them_learns_boxes_and_says_which_they_are(trained: Path) -> None:
    result = read_result(Place.of(trained).store)
    assert result.anchor_recall == 1.0 and not any("no anchor fits" in line for line in result.warnings)
    assert all(row.box is not None and row.box > 0.01 for row in rows_of(trained, "train"))
    anchors = open_bundle(Place.of(trained / "bundle")).manifest.anchors
    assert anchors != model_facts(MODEL).anchors and anchors[0][0] == pytest.approx((3, 3), abs=0.6)
    assert result.identity["train.anchors"] == [[list(pair) for pair in level] for level in anchors]


def test_a_training_is_not_continued_with_other_anchors(dataset: str, trained: Path) -> None:
    spec = spec_for(dataset, trained)
    with pytest.raises(InputError, match=r"started with train\.anchors = \[\[\[.*now it is \[\]"):
        train_detector(spec, Distribution(0, 1), StopRequest(), print)


def test_every_network_of_the_bundle_gives_the_boxes_of_the_trained_one(
    dataset: str, trained: Path, tmp_path: Path, mindspore_ready: None
) -> None:
    bundle, opened = open_bundle(Place.of(trained / "bundle")), open_dataset(Place.of(dataset))
    # What the training saw with its own network, before anything was stored.
    validated = rows_of(trained, "val")[-1]
    config = load_config(MODEL, sets=SETTINGS).evaluate
    reloaded = load_predictor(bundle, batch_size=config.per_batch_size)
    result, _ = evaluate_split(reloaded, opened.split("val"), opened.manifest, config, progress=False)
    assert validated.ap50 and (validated.ap, validated.ap50) == (result.numbers["AP"], result.numbers["AP50"])

    images = np.random.default_rng(0).random((2, 3, SIZE, SIZE), np.float32)
    raws, wanted = reloaded.raw(images), reloaded.predictions(images)
    manifest, facts = bundle.manifest, model_facts(MODEL)
    np.testing.assert_array_equal(
        wanted, decode(raws, manifest.anchors, manifest.strides, facts.decode, facts.scale_xy)
    )
    with_builtin = decode(raws, facts.anchors, manifest.strides, facts.decode, facts.scale_xy)
    assert np.abs(with_builtin[..., 2:4] - wanted[..., 2:4]).max() > 5

    path = tmp_path / ONNX
    export_onnx(manifest, lambda: load_network(manifest, bundle.path(WEIGHTS)), path)
    derived = derive_bundle(bundle, Place.of(tmp_path / "derived"), {ONNX: path})
    assert derived.manifest.anchors == manifest.anchors
    found = load_predictor(derived, "onnx").predictions(images)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-3)

"""The pretraining of a backbone by several processes."""

from __future__ import annotations

from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import load

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import AugmentConfig, PretrainConfig
from kubeyolo.data.crops import CropBatches, Crops
from kubeyolo.errors import InputError
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.classifier import ClassificationLoss, hits
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.loop import StopRequest
from kubeyolo.training.pretrain import pretrain_backbone
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from tests.training.killing import history_of, weights_of

CONFIG = {
    "model": "yolov5n-r7",
    "data": {"workers": 1},
    "pretrain": {"image_size": 32, "per_batch_size": 8, "max_steps": 4, "processes": 2},
    "train": {"log_interval": 2},
}


def spec_for(dataset: str, output: Path) -> TrainingSpec:
    return TrainingSpec(task="backbone", dataset=dataset, output=str(output), config=Config.model_validate(CONFIG))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Seven classes, each of one colour, divided as ImageNet is; the images of val are brighter, and one is damaged."""
    hues = np.linspace(0, 179, 8)[:7]
    for split, count, value in (("train", 8, 160), ("val", 3, 200)):
        for label, hue in enumerate(hues):
            folder = tmp_path / "images" / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            pixel = np.full((1, 1, 3), (hue, 220, value), np.uint8)
            image = np.broadcast_to(cv2.cvtColor(pixel, cv2.COLOR_HSV2BGR), (40, 48, 3))
            for number in range(count):
                cv2.imwrite(str(folder / f"{number}.png"), image)
    (tmp_path / "images/val/n00000002/1.png").write_bytes(b"lost")
    return tmp_path / "images"


def test_two_processes_pretrain_on_folders_of_classes(folders: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    lines: list[str] = []
    launch_work(spec_for(str(folders), output).work(), lines.append)
    rows = history_of(output)
    assert [(row["step"], row["kind"]) for row in rows if row.get("loss")] == [(2, "pretrain"), (4, "pretrain")]
    assert read_result(Place.of(output).store).identity["pretrain.processes"] == 2
    assert any(line.startswith("published ") for line in lines)
    assert all(np.isfinite(array).all() for array in load(weights_of(output)).values())
    # 20 of the 21 images of val can be decoded.
    assert any("pretraining on 56 images of 7 classes, 20 held out" in line for line in lines), lines
    (warning,) = read_result(Place.of(output).store).warnings
    assert warning.startswith("1 of 21 (4.8 %) held-out images cannot be decoded, and are left out; the first: val/n0")
    last = rows[-1]
    top1, top5 = float(last["accuracy"]), float(last["top5"])
    assert (20 * top1) % 1 == pytest.approx(0) and 0 <= top1 <= top5 <= 1
    assert any(f"held-out top-1:{top1:.4f}, top-5:{top5:.4f}" in line for line in lines)
    bundle = open_bundle(Place.of(output / "bundle"))
    assert bundle.manifest.metrics["pretrain"] == {"accuracy": top1, "top5": top5}
    assert len(bundle.manifest.classes) == 7


def test_hits_count_the_rank_of_the_right_class() -> None:
    logits = np.array([[5, 4, 3, 2, 1, 0, -1], [1, 1, 1, 1, 1, 1, 1], [0, 9, 8, 7, 6, 5, 4], [9, 0, 0, 0, 0, 0, 0]])
    assert hits(logits.astype(np.float32), np.array([4, 0, 0, -1], np.int32)).tolist() == [1, 0, 0, 0, 1]
    few = np.array([[0, 2, 1], [3, 2, 1]], np.float32)
    assert hits(few, np.array([2, 0], np.int32)).tolist() == [1, 1, 0, 0, 0]


def test_the_losses_of_the_processes_add_up_to_the_mean_over_all_their_crops() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(8, 5)).astype(np.float32), rng.integers(0, 5, 8).astype(np.int32)

    def total(world: int, rows: slice) -> float:
        loss, part = ClassificationLoss(5, world)(Tensor(logits[rows]), Tensor(labels[rows], ms.int32))
        assert part.asnumpy()[0] == pytest.approx(float(loss.asnumpy()) * world, rel=1e-6)
        return float(loss.asnumpy())

    assert total(2, slice(0, 4)) + total(2, slice(4, 8)) == pytest.approx(total(1, slice(0, 8)), rel=1e-6)


def test_the_processes_divide_the_crops_of_one_process_among_them() -> None:
    crops = Crops(np.zeros((10, 50, 50, 3), np.uint8), np.arange(10, dtype=np.int32))

    def labels(size: int, rank: int, world: int) -> list[list[int]]:
        config = PretrainConfig(image_size=32, per_batch_size=size)
        batches = CropBatches(crops, config, AugmentConfig(), 3, rank, world)
        return [batch.labels.tolist() for batch in batches.epoch(0)]

    alone = labels(4, 0, 1)
    assert [first + second for first, second in zip(labels(2, 0, 2), labels(2, 1, 2), strict=True)] == alone


def test_another_number_of_processes_is_refused(small_dataset: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pretrain\.processes is 2, but 1 training processes were started"):
        pretrain_backbone(spec_for(small_dataset, tmp_path / "output"), Distribution(), StopRequest())

"""The pretraining of a backbone by several processes."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from safetensors.numpy import load

from kubeyolo.config.schema import AugmentConfig, Config, PretrainConfig
from kubeyolo.data.crops import CropBatches, Crops
from kubeyolo.errors import InputError
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.classifier import ClassificationLoss
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


def test_two_processes_pretrain_one_backbone(small_dataset: str, tmp_path: Path) -> None:
    output = tmp_path / "output"
    lines: list[str] = []
    launch_work(spec_for(small_dataset, output).work(), lines.append)
    rows = history_of(output)
    assert [(row["step"], row["kind"]) for row in rows if row.get("loss")] == [(2, "pretrain"), (4, "pretrain")]
    assert read_result(Place.of(output).store).identity["pretrain.processes"] == 2
    assert any(line.startswith("published ") for line in lines)
    assert all(np.isfinite(array).all() for array in load(weights_of(output)).values())


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

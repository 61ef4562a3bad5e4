"""Validation while training, on the real training program: it is seen, and changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.config.schema import Config, EvaluateConfig
from kubeyolo.data.dataset import open_dataset
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.data.shards import write_dataset
from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import ClassResult, EvaluationResult
from kubeyolo.launch.local import launch_work
from kubeyolo.storage.place import Place
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory, best_validation
from kubeyolo.training.profile import VALIDATIONS, read_summary
from kubeyolo.training.result import read_result
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.training.validation import MOST_CLASSES, ValidationPlan, ap_by_class, plan_validation
from tests.training.small_training import spec_for

THRESHOLDS = {"conf_threshold": 0.0, "max_det": 50}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("validation")
    source = generate_sample_dataset(folder / "source", train=8, val=3)
    return write_dataset(source, Place.of(folder / "store")).uri


def train(dataset: str, output: Path, **settings: Any) -> list[str]:
    values = {"image_size": 64, "per_batch_size": 4, "max_epoch": 4, "log_interval": 2, "warmup_steps": 1, **settings}
    values = {"val_interval": 0, **values}
    config = Config.model_validate({"data": {"workers": 0}, "train": values, "evaluate": THRESHOLDS})
    lines: list[str] = []
    launch_work(TrainingSpec(dataset=dataset, output=str(output), config=config).work(), show=lines.append)
    return lines


def rows_of(output: Path, kind: str) -> list[HistoryRow]:
    return TrainingHistory.from_bytes((output / FILE_NAME).read_bytes()).of(kind)


def weights_of(output: Path) -> bytes:
    return open_bundle(Place.of(output / "bundle")).path("weights.safetensors").read_bytes()


def test_validation_is_in_the_history_and_leaves_the_weights_as_they_are(dataset: str, tmp_path: Path) -> None:
    train(dataset, tmp_path / "without", tensorboard=False)
    lines = train(dataset, tmp_path / "with", val_interval=2, keep="last", need_profiler=True)
    rows = rows_of(tmp_path / "with", "val")
    assert [(row.epoch, row.step) for row in rows] == [(1, 4), (3, 8)]
    assert [line.split(":")[0] for line in lines if "val AP" in line] == ["epoch[1], val AP", "epoch[3], val AP"]
    assert rows_of(tmp_path / "without", "val") == []
    assert weights_of(tmp_path / "with") == weights_of(tmp_path / "without")
    losses = [[(row.step, row.loss) for row in rows_of(tmp_path / name, "train")] for name in ("with", "without")]
    assert losses[0] == losses[1]
    # Nor do event files and the profiler change anything.
    assert (tmp_path / "with" / "events").is_dir() and not (tmp_path / "without" / "events").exists()
    summary = read_summary(Place.of(tmp_path / "with").store)
    assert summary is not None and summary.seconds[VALIDATIONS] > 0
    assert summary.steps == (4, 4), [line for line in lines if line.startswith("warning: MindSpore")]
    assert {"Conv2D", "Conv2DBackpropFilter"} < {each.kind for each in summary.operators}
    assert {each.count for each in summary.operators if each.kind == "Conv2D"} == {60}
    assert [path.name for path in (tmp_path / "with" / "profile").glob("*/*/trace_view.json")] == ["trace_view.json"]

    # The last row is of the weights that are published: the second network takes new weights each time.
    from kubeyolo.evaluation.predictor import load_predictor
    from kubeyolo.evaluation.split_evaluation import evaluate_split

    predictor = load_predictor(open_bundle(Place.of(tmp_path / "with" / "bundle")))
    opened = open_dataset(Place.of(dataset))
    config = EvaluateConfig.model_validate(THRESHOLDS)
    result, _ = evaluate_split(predictor, opened.split("val"), opened.manifest, config)
    assert (rows[-1].ap, rows[-1].ap50) == (result.numbers["AP"], result.numbers["AP50"])
    assert rows[-1].ap is not None
    assert rows[-1].ap_by_class == {
        each.name: round(each.AP, 6) for each in result.per_class if each.boxes and each.AP is not None
    }


def test_the_best_validation_is_the_earliest_of_the_highest() -> None:
    def row(epoch: int, ap: float | None) -> HistoryRow:
        return HistoryRow(kind="val", step=epoch, epoch=epoch, ap=ap)

    assert best_validation([row(0, 0.1), row(1, 0.3), row(2, 0.3), row(3, None)]) == row(1, 0.3)
    assert best_validation([row(0, None), row(1, 0.0)]) is None and best_validation([]) is None


def test_ap_by_class_has_the_classes_with_most_boxes_in_their_order() -> None:
    def result(boxes: list[int]) -> EvaluationResult:
        rows = [
            ClassResult(name=str(n), AP=count / 1000 if count else None, AP50=None, images=0, boxes=count)
            for n, count in enumerate(boxes)
        ]
        return EvaluationResult(numbers={}, per_class=rows)

    assert ap_by_class(result([3, 0, 5])) == {"0": 0.003, "2": 0.005}
    many = ap_by_class(result([1, *range(2, MOST_CLASSES + 2)]))
    assert list(many) == [str(n) for n in range(1, MOST_CLASSES + 1)]


def test_the_other_process_waits_for_a_validation_and_stops_with_the_first(small_dataset: str, tmp_path: Path) -> None:
    early = {"val_interval": 1, "patience": 1, "min_delta": 0.99, "ckpt_interval": 100, "lr": 0.001, "ema_tau": 3}
    more = {"processes": 2, "max_epoch": 8, "per_batch_size": 2, "sync_bn": True}
    spec = spec_for(small_dataset, tmp_path, "yolov4-tiny", **more, **early)
    lines: list[str] = []
    launch_work(spec.work(), show=lines.append)
    assert "batch normalization: 19 layers use the statistics of the images of all 2 processes" in lines
    # AP is above 0 soon, because every box counts, and cannot rise by 0.99.
    rated = [row for row in rows_of(tmp_path, "val") if row.ap]
    assert len(rated) == 2
    (stopped,) = rows_of(tmp_path, "stopped")
    assert stopped.epoch == rated[-1].epoch < 7
    reason = f"AP has not improved by more than 0.99 for 1 epoch, since epoch {rated[0].epoch}"
    assert any(f"epoch[{stopped.epoch}], stopping early: {reason}" in line for line in lines)
    result = read_result(Place.of(tmp_path).store)
    assert (result.steps, result.stopped) == (stopped.step, reason) and stopped.step == 6 * (stopped.epoch + 1)


def test_the_plan_is_said_once_with_its_share_of_the_time(dataset: str) -> None:
    opened, lines = open_dataset(Place.of(dataset)), list[str]()

    def planned(steps: int = 10, **train: Any) -> ValidationPlan | None:
        lines.clear()
        config = Config.model_validate({"train": {"per_batch_size": 4, "max_epoch": 20, **train}})
        return plan_validation(config, opened, steps, lines.append)

    # 0.55 x 3 images in 40, or in 8, of which a twentieth is 2, or 0.4.
    assert planned() == ValidationPlan("val", 1, 20)
    assert lines == [
        "validating after each epoch, on the 3 images of the split val (train.val_interval = auto: about 4.1 % of the "
        "time)"
    ]
    plan = planned(2)
    assert plan == ValidationPlan("val", 5, 20) and "every 5 epochs and after the last epoch" in lines[0]
    assert planned(val_interval=3) == ValidationPlan("val", 3, 20) and "auto" not in lines[0]
    plan = ValidationPlan("val", 3, 8)
    assert [epoch for epoch in range(8) if plan.is_due(epoch)] == [2, 5, 7]
    assert planned(val_interval=0) is None and lines == []
    with pytest.raises(InputError, match="no split 'vall'; did you mean 'val'"):
        planned(val_split="vall")


@pytest.mark.parametrize(
    ("change", "lack"),
    [
        ({"boxes": 0}, "the split val has no annotated boxes"),
        ({"images": 0, "boxes": 0}, "the split val has no annotated boxes"),
        (None, "the data set has no split val"),
    ],
)
def test_nothing_is_validated_without_boxes(dataset: str, change: dict[str, int] | None, lack: str) -> None:
    opened, lines = open_dataset(Place.of(dataset)), list[str]()
    splits = dict(opened.manifest.splits)
    val = splits.pop("val")
    splits |= {} if change is None else {"val": val.model_copy(update=change)}
    other = replace(opened, manifest=opened.manifest.model_copy(update={"splits": splits}))
    assert plan_validation(Config(), other, 10, lines.append) is None
    assert lines == [f"nothing is validated while training, and the weights after the last epoch are published: {lack}"]


def test_the_second_network_takes_the_weights_of_each_validation(dataset: str, mindspore_ready: None) -> None:
    import numpy as np
    from mindspore import Tensor

    from kubeyolo.bundle import BundleManifest
    from kubeyolo.models.named_facts import model_facts
    from kubeyolo.models.registry import build_model
    from kubeyolo.training.validation import Validation

    class Engine:
        seed = 0

        def averaged(self) -> dict[str, np.ndarray]:
            return {p.name: p.asnumpy().copy() for p in build_model("yolov5n-r7", 2, seed=self.seed).get_parameters()}

    engine, facts = Engine(), model_facts("yolov5n-r7")
    manifest = BundleManifest(
        model="yolov5n-r7", classes=("a", "b"), image_size=(64, 64), strides=facts.strides, anchors=facts.anchors
    )
    plan = ValidationPlan("val", 1, 4)
    validation = Validation(engine, open_dataset(Place.of(dataset)), manifest, Config(), plan)  # type: ignore[arg-type]
    images = Tensor(np.random.default_rng(0).random((1, 3, 64, 64), np.float32))
    seen = []
    for engine.seed in (1, 2, 1):
        seen.append(validation._network_with(engine.averaged())(images)[0].asnumpy())
    assert np.abs(seen[0] - seen[1]).max() > 1e-3
    np.testing.assert_array_equal(seen[0], seen[2])

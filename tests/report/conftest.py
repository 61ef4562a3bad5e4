"""Reports with known content."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.schema import Config, ExportConfig, QuantizeConfig
from kubeyolo.data.index import SplitIndex
from kubeyolo.data.manifest import DatasetManifest, SplitManifest, StoredFile
from kubeyolo.evaluation.coco_eval import Detection
from kubeyolo.evaluation.comparison import Difference, compare_matches
from kubeyolo.evaluation.error_analysis import ErrorAnalysis, analyse_errors
from kubeyolo.evaluation.matching import match_detections
from kubeyolo.evaluation.operating_points import operating_points
from kubeyolo.evaluation.paired_speed import PairedSpeed
from kubeyolo.evaluation.results import COCO_KEYS, COCO_NUMBERS, ClassResult, EvaluationResult
from kubeyolo.quantization.int8 import QuantizationFacts
from kubeyolo.quantization.sensitivity import LayerCost
from kubeyolo.report.comparison import comparison_report, decision_text
from kubeyolo.report.configuration import PlanView, SettingRow, configuration_report
from kubeyolo.report.dataset import dataset_report
from kubeyolo.report.evaluation import evaluation_report
from kubeyolo.report.export import export_report
from kubeyolo.report.index import StepCard, index_page
from kubeyolo.report.model_card import publish_report
from kubeyolo.report.quantization import quantization_report
from kubeyolo.report.samples import Box, ErrorPictures, SampleImage
from kubeyolo.report.speed import speed_report
from kubeyolo.report.training import BatchPicture, pretraining_report, training_report
from kubeyolo.steps.export import Parity
from kubeyolo.steps.export import judge as judge_export
from kubeyolo.steps.quantize import judge
from kubeyolo.training.batch_pictures import draw_batch
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.profile import Operator, ProfileSummary
from tests.evaluation.simulated import DrawnImages

HOSTILE = "<script>alert(1)</script>"
CLASSES = ("disc", "ring", HOSTILE)
SIZE = (600, 400)


def split_index(seed: int, images: int) -> SplitIndex:
    """Return an index of ``images`` images; the first has no boxes, the second one crowd box."""
    rng = np.random.default_rng(seed)
    counts = np.array([0, *rng.integers(1, 9, images - 1)])
    total = int(counts.sum())
    wh = rng.uniform(8, 220, (total, 2))
    xy = rng.uniform(0, 1, (total, 2)) * (np.array(SIZE) - wh)
    crowd = np.zeros(total, np.bool_)
    crowd[0] = True
    return SplitIndex(
        image_id=np.arange(images, dtype=np.int64),
        file_name=[f"{number:04}.jpg" for number in range(images)],
        width=np.full(images, SIZE[0], np.int32),
        height=np.full(images, SIZE[1], np.int32),
        box_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        box_id=np.arange(total, dtype=np.int64),
        box_class=(np.arange(total) % len(CLASSES)).astype(np.int32),
        box_xywh=np.concatenate([xy, wh], axis=1),
        box_area=wh.prod(axis=1),
        box_crowd=crowd,
    )


def sample(caption: str, score: float | None = None) -> SampleImage:
    """Return a noisy image with a large, a small, a crowd and a partly outside box."""
    image = np.random.default_rng(len(caption)).integers(0, 255, (SIZE[1] // 8, SIZE[0] // 8, 3), np.uint8)
    boxes = [
        Box((30, 40, 330, 300), CLASSES[0], score),
        Box((100, 120, 130, 150), CLASSES[1], score),
        Box((400, 20, 580, 200), CLASSES[2], score, crowd=score is None),
        Box((500, 300, 700, 500), CLASSES[0], score),
    ]
    return SampleImage(image.repeat(8, axis=0).repeat(8, axis=1), boxes, caption)


def evaluation_result(shift: float = 0.0) -> EvaluationResult:
    """Return a result whose 12 numbers all differ, one of them without ground truth."""
    numbers: dict[str, float | None] = {n.key: 0.9 - 0.0517 * i - shift for i, n in enumerate(COCO_NUMBERS)}
    numbers["APs"] = None
    curve = [1 / (1 + math.exp(12 * (i / 100 - 0.8))) for i in range(101)]
    return EvaluationResult(
        numbers=numbers,
        per_class=[
            ClassResult(name=CLASSES[0], AP=0.4 - shift, AP50=0.7, images=20, boxes=50),
            ClassResult(name=CLASSES[1], AP=0.8, AP50=0.95, images=31, boxes=70),
            ClassResult(name=CLASSES[2], AP=None, AP50=None, images=0, boxes=0),
        ],
        curves={CLASSES[0]: curve, CLASSES[1]: [value**2 for value in curve]},
        images=40,
        boxes=120,
        detections=3000,
        split="val",
        runtime="onnx",
        image_size=(320, 320),
    )


def error_analysis() -> ErrorAnalysis:
    """Return the analysis of detections near the boxes of 24 images, some of them wrong, one image with a bad name."""
    index, rng = split_index(1, 24), np.random.default_rng(0)
    index.file_name[1] = f"{HOSTILE}.jpg"
    detections = []
    for image, label, xywh in zip(index.box_image().tolist(), index.box_class, index.box_xywh, strict=True):
        number = int(label) if rng.random() < 0.8 else int(rng.integers(3))
        box = [*(xywh[:2] + rng.normal(0, 10, 2)).tolist(), *xywh[2:].tolist()]
        detections.append(Detection(image_id=image, category_id=number + 1, bbox=box, score=float(rng.uniform(0.3, 1))))
    detections.append(Detection(image_id=1, category_id=3, bbox=[500.0, 300.0, 90.0, 90.0], score=0.99))
    matches = match_detections(index, (1, 2, 3), detections)
    points = operating_points(matches, CLASSES)
    return analyse_errors(matches, points, CLASSES, rng.uniform(0, 255, len(index)))


def errors_page() -> str:
    """Return the report of an evaluation with an analysis of its errors."""
    outcomes = ("missed", "false alarm", "hit", "hit")
    worst = sample(f"{HOSTILE}.jpg: 2 hits, 1 missed, 1 false alarm", 0.87)
    boxes = [replace(box, outcome=outcome) for box, outcome in zip(worst.boxes, outcomes, strict=True)]
    pictures = ErrorPictures([replace(worst, boxes=boxes)] * 2, [replace(worst, boxes=boxes[:2])] * 3)
    confusion = np.array([[9, 1, 0, 2], [0, 8, 1, 1], [1, 0, 7, 0], [3, 2, 1, 0]])
    return evaluation_report(evaluation_result(), (), "yolov5n-r7", error_analysis(), confusion, pictures)


def training_history() -> TrainingHistory:
    """Return 300 logged steps and five validations, of which the fourth is the best."""
    history, rng = TrainingHistory(), np.random.default_rng(0)
    for step in range(1, 301):
        part = math.exp(-step / 80)
        noise = float(rng.normal(1, 0.1))
        history.append(
            HistoryRow(
                step=step,
                epoch=(step - 1) // 60,
                loss=(1 + 3 * part) * noise,
                box=(0.3 + part) * noise,
                obj=(0.6 + part) * noise,
                cls=(0.1 + part) * noise,
                lr=0.01 * (1 - step / 301),
                images_per_second=20 * noise,
            )
        )
        if step % 60 == 0:
            epoch = (step - 1) // 60
            ap = 0.6 - part - (0.2 if epoch == 4 else 0.0)
            classes = {CLASSES[0]: ap + 0.1, CLASSES[1]: ap - 0.1, CLASSES[2]: ap}
            history.append(HistoryRow(kind="val", step=step, epoch=epoch, ap=ap, ap50=ap + 0.3, ap_by_class=classes))
    return history


QUANTIZATION_FACTS = {
    "convs": 60,
    "quantized_convs": 58,
    "float_bytes": 7_000_000,
    "int8_bytes": 2_100_000,
    "calibration_images": 64,
    "calibration": "minmax",
}


def quantization_page(before: EvaluationResult, after: EvaluationResult, **facts: Any) -> str:
    """Return the page of a quantization, with the verdict of the step."""
    given = QuantizationFacts(**{**QUANTIZATION_FACTS, **facts})
    verdict = judge(given, before.numbers, after.numbers, QuantizeConfig())
    costs = [LayerCost("Conv_7", "stage.conv.weight", 21.04), LayerCost("Conv_1", "stem.conv.weight", 43.5)]
    speed = PairedSpeed("onnxruntime", 30.0, 40.0, "a processor", 2)
    return quantization_report(before, after, verdict, given, costs, speed, [speed.warning])


PROFILE = ProfileSummary(
    seconds={"training steps": 700.0, "waiting for batches": 80.0, "validations": 32.4},
    steps=(3, 7),
    operators=tuple(Operator(kind=f"Operator{i}", count=5 * i, seconds=0.5 / i) for i in range(1, 30)),
)


def batch_pictures() -> list[BatchPicture]:
    """Return the pictures of two batches of noise with boxes."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 255, (8, 3, 16, 16), np.uint8).repeat(8, axis=2).repeat(8, axis=3)
    labels = np.array([[i % 8, i % 3, 0.3 + 0.05 * i, 0.4, 0.3, 0.5] for i in range(9)], np.float32)
    return [BatchPicture(draw_batch(images, labels, CLASSES), f"epoch {epoch}, first batch") for epoch in (1, 4)]


def step_cards() -> list[StepCard]:
    """Return the cards of a run that failed in quantize."""
    return [
        StepCard("configure", "succeeded", 1.0, "reports/configure.html", {"changed settings": 2}),
        StepCard("validate_dataset", "cached", 3.0, "reports/validate_dataset.html", {"images": 60}),
        StepCard("pretrain_backbone", "skipped"),
        StepCard("train", "succeeded", 812.0, "reports/train.html", {"loss": 1.25}),
        StepCard("evaluate", "succeeded", 20.0, "reports/evaluate.html", {"AP": 0.6123}),
        StepCard("export_model", "succeeded", 30.0, "reports/export_model.html"),
        StepCard("quantize", "failed", 40.0, "reports/quantize.html", note=f"AP dropped {HOSTILE}"),
        StepCard("publish", "pending"),
    ]


def plan_view() -> PlanView:
    """Return a plan of four settings, two of which differ from the preset, one with markup in its value and origin."""
    return PlanView(
        name="yolov5n-r7-shapes-0a1b2c",
        lead=f"yolov5n-r7 is trained on minio://data/{HOSTILE}: 10 epochs at 64 px.",
        facts={
            "pipeline": "detector-training",
            "data": f"minio://data/{HOSTILE}",
            "store": "minio://a|b",
            "version": "",
        },
        images={"train": 118_287, "val": 5_000},
        settings=[
            SettingRow("model", "yolov5n-r7", "yolov5n-r7", "the schema's default"),
            SettingRow("train.max_epoch", 10, 300, "the field max_epoch"),
            SettingRow("train.lr", 0.01, 0.01, "the preset yolov5n-r7"),
            SettingRow("pretrain.data", HOSTILE, "", f"the field settings {HOSTILE}"),
        ],
        estimate=["about 3 h on 2 cores", f"and 1 GB {HOSTILE}"],
        notes=[f"the data was read {HOSTILE}"],
    )


def dataset_page() -> str:
    stored = StoredFile(name="x", size=10, sha256="0" * 64)
    splits = {"train": split_index(0, 40), "val": split_index(1, 20)}
    manifest = DatasetManifest(
        name="shapes <script>alert(1)<script>",
        source="file:///data/shapes",
        digest="ab" * 32,
        classes=CLASSES,
        category_ids=(1, 2, 3),
        splits={
            name: SplitManifest(images=len(index), boxes=index.boxes, crowd=1, index=stored, shards=(stored,))
            for name, index in splits.items()
        },
    )
    return dataset_report(manifest, splits, [sample("one.jpg"), sample("two two.jpg")])


def comparison_page() -> str:
    """Return the page of a comparison of two models that differ on many images; a class has a hostile name."""
    drawn = DrawnImages(5, 60)
    found = compare_matches(drawn.matches(), drawn.matches(0.7), CLASSES[1:])
    numbers = [*found.numbers, *(Difference(key, 0.5, None) for key in COCO_KEYS[2:])]
    bundle = {"bundle": f"minio://m/{HOSTILE}", "runtime": "onnx", "image_size": (320, 320), "threshold": 0.41}
    most = [
        {"image_id": each.image_id, "file_name": f"{HOSTILE} {each.image_id}.jpg"}
        | {"first": asdict(each.first), "second": asdict(each.second)}
        for each in found.images[:50]
    ]
    document = {"bundles": [bundle, bundle], "split": "val", "images": 60, "images_that_differ": len(found.images)}
    document["verdict"] = decision_text(numbers[0], 60)
    trio = (sample(f"{HOSTILE}.jpg: ground truth"), sample("a.jpg: A", 0.87), sample("a.jpg: B", 0.6))
    return comparison_report(
        (f"first {HOSTILE}", "second"), numbers, found, document | {"most_different": most}, [trio, trio]
    )


def speed_page() -> str:
    """Return the page of a benchmark; the machine and the bundle have hostile names."""
    latency = {"p50": 17.04, "p90": 20.1, "p95": 22.0, "p99": 30.55}
    speeds = [
        {"runtime": runtime, "batch": batch, "threads": 2, "image_size": (320, 320), "latency_ms": latency}
        | {"images_per_second": 55.5 * batch, "memory": memory, "load_seconds": 0.3, "runs": 120}
        for runtime, batch, memory in (("onnx", 1, 120e6), ("int8", 1, 0), ("onnx", 8, 150e6))
    ]
    return speed_report("yolov5n-r7", {"machine": HOSTILE, "bundle": f"minio://m/{HOSTILE}", "speeds": speeds})


def build_pages() -> dict[str, str]:
    """Return every report by the name of its step, and the index page."""
    facts = {"seconds": 812.4, "resumed_at": [100, 200], "model": {"parameters": 1_872_157, "strides": (8, 16, 32)}}
    pretraining = [HistoryRow(step=s, epoch=s // 50, loss=2 / s, accuracy=1 - 1 / s) for s in range(1, 120)]
    parity = {name: {f"stride {s}": 1e-6 * s for s in (8, 16, 32)} for name in ("onnx", "mindir")}
    files = {"model.onnx": 7_200_000, "model.mindir": 7_400_000}
    return {
        "configure": configuration_report(plan_view()),
        "validate_dataset": dataset_page(),
        "pretrain_backbone": pretraining_report(pretraining, {"model": "yolov5n-r7", "seconds": 51.0}),
        "train": training_report(training_history(), Config().model_dump(), facts, batch_pictures(), PROFILE),
        "evaluate": evaluation_report(
            evaluation_result(), [(sample("a.jpg: ground truth"), sample("a.jpg: detections", 0.87))], "yolov5n-r7"
        ),
        "errors": errors_page(),
        "export_model": export_report(
            {"model": "yolov5n-r7", "files": files, "parity": parity, "rtol": 1e-4},
            judge_export(Parity(parity), ExportConfig()),
        ),
        "quantize": quantization_page(evaluation_result(), evaluation_result(0.0042)),
        "compare": comparison_page(),
        "benchmark": speed_page(),
        "publish": publish_report("yolov5n-r7", "1", f"# {HOSTILE}", {"bundle": "minio://models/yolov5n-r7/1"}),
        "index": index_page(
            "yolov5n-r7-shapes-0a1b2c",
            step_cards(),
            {
                "model": "yolov5n-r7",
                "dataset": {"name": "shapes", "digest": "ab" * 32},
                "evaluate": evaluation_result().numbers,
                "export": {"onnx": {"AP": 0.9}},
                "quantize": {"int8": {"AP": 0.8958}},
                "bundle": "minio://models/yolov5n-r7/1",
                "seconds": {"train": 812.0},
            },
            CompiledPipeline.named().edges,
        ),
    }


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as that of a run: index.html and reports/<step>.html."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "reports").mkdir()
    for name, html in build_pages().items():
        place = folder if name == "index" else folder / "reports"
        (place / f"{name}.html").write_text(html)
    return folder

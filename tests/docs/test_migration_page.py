"""The examples of docs/migration.md run, in their order and in one folder, on a few images.

Training, export and the trained network are replaced by fixed ones, which take no time; all else is real: options,
settings, stores, digests, resuming, importing, evaluation.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from kubeyolo.bundle import ONNX, open_bundle
from kubeyolo.cli.app import main
from kubeyolo.config.schema import Config
from kubeyolo.storage.place import Place
from kubeyolo.training.result import RESULT_NAME, TrainingResult
from tests.steps.fixed_detector import fixed_bundle, write_data
from tests.steps.fixed_work import fix_work
from tests.weights.arrays_of_yolov5n import upstream_arrays

PAGE = Path(__file__).parents[2] / "docs" / "migration.md"
DATASET = re.compile(r"store/datasets/coco-[0-9a-f]{12}")


def examples() -> dict[str, list[str]]:
    """Return the command lines of each example by its heading."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## Examples\n")[2].partition("\n## Scripts\n")[0]
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    named = {"Data": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}
    return {
        name: [line for block in re.findall(r"```sh\n(.*?)```", part, re.DOTALL) for line in block.splitlines()]
        for name, part in named.items()
    }


def write_coco(folder: Path) -> None:
    """Write a data set as COCO is published, with the list of images of test-dev."""
    write_data(folder)
    annotations = folder / "annotations"
    for split in ("train", "val"):
        (annotations / f"{split}.json").rename(annotations / f"instances_{split}2017.json")
        (folder / split).rename(folder / f"{split}2017")
    shutil.copytree(folder / "val2017", folder / "test2017")
    listed = json.loads((annotations / "instances_val2017.json").read_text())
    del listed["annotations"]
    (annotations / "image_info_test-dev2017.json").write_text(json.dumps(listed))


class Examples:
    """Runs the lines of examples; the name of the stored data set is that of the data set stored last."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys
        self.dataset = ""
        self.printed = ""

    def run(self, line: str) -> None:
        name, *arguments = shlex.split(DATASET.sub(self.dataset, line))
        if name != "kubeyolo":
            name = sys.executable if name == "python" else name
            subprocess.run([name, *arguments], check=True)
            return
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        self.printed, errors = self.capsys.readouterr()
        assert ended.value.code == 0, f"{line}\n{self.printed}{errors}"
        if arguments[0] == "validate":
            found = DATASET.search(self.printed)
            assert found
            self.dataset = found[0]

    def trained(self, output: str) -> Config:
        """Return the configuration of a training."""
        bundle = json.loads((self.folder / output / "bundle" / "bundle.json").read_text())
        return Config.model_validate(bundle["config"])


@pytest.fixture
def page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Examples, list[str]]:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    network = open_bundle(Place.of(fixed_bundle(tmp_path / "fixed", {"onnx": 4}))).path(ONNX)
    worked = fix_work(monkeypatch, tmp_path, network)
    write_coco(tmp_path / "work" / "data" / "coco")
    # The format of a file is found by its content.
    save_file(upstream_arrays(), tmp_path / "work" / "yolov5n.pt")
    return Examples(tmp_path / "work", capsys), worked


def test_every_example_runs(page: tuple[Examples, list[str]]) -> None:
    shown, worked = page
    lines = examples()
    assert list(lines) == ["Data", "Train", "Resume", "Fine-tune", "Evaluate", "test-dev", "Export"]
    assert all(lines.values())
    for name in ("Data", "Train", "Resume", "Fine-tune", "Evaluate"):
        for line in lines[name]:
            shown.run(line)

    yolov4, p5 = shown.trained("trainings/yolov4").train, shown.trained("trainings/p5")
    assert (yolov4.lr, yolov4.t_max, yolov4.warmup_epochs, yolov4.image_size) == (0.012, 320, 4.0, 416)
    assert (yolov4.warmup, yolov4.loss_scale, yolov4.lr_scheduler) == ("linear", 64.0, "cosine_annealing")
    assert (p5.model, p5.train.image_size, p5.train.per_batch_size, p5.train.max_epoch) == ("yolov4-p5", 896, 8, 300)
    # Training twice with one command is one training; each output was trained in once.
    assert worked.count("detector") == 5
    tuned, on_backbone = (
        TrainingResult.model_validate_json((shown.folder / "trainings" / name / RESULT_NAME).read_text()).identity
        for name in ("fine-tuned", "from-backbone")
    )
    assert tuned["weights"] and not tuned["backbone"] and tuned["train.lr"] == 0.002
    assert tuned["train.momentum"] == 0.843, "the recipe for fine-tuning"
    assert on_backbone["backbone"] and "weights" not in on_backbone and on_backbone["train.momentum"] == 0.937
    result = json.loads((shown.folder / "evaluations/yolov5n/result.json").read_text())
    assert result["split"] == "val" and result["images"] == 3
    assert "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0.600" in shown.printed

    for name in ("test-dev", "Export"):
        for line in lines[name]:
            shown.run(line)
    with zipfile.ZipFile("evaluations/test-dev/detections_test-dev2017_yolov5n-r7_results.zip") as archive:
        (file,) = archive.namelist()
        boxes = json.loads(archive.read(file))
    assert file == "detections_test-dev2017_yolov5n-r7_results.json"
    assert {tuple(sorted(box)) for box in boxes} == {("bbox", "category_id", "image_id", "score")}
    assert {box["image_id"] for box in boxes} == {1, 2, 3}
    assert (shown.folder / "exports/yolov5n/bundle/bundle.json").is_file()


def test_every_flag_of_the_table_of_detectors_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    flags = (
        "per_batch_size pretrained_backbone resume_yolov3 resume_yolov4 resume_yolov5 lr_scheduler lr lr_epochs "
        "lr_gamma eta_min t_max max_epoch warmup_epochs weight_decay momentum loss_scale label_smooth "
        "label_smooth_factor log_interval ckpt_path ckpt_interval is_save_on_master is_distributed rank group_size "
        "need_profiler training_shape resize_rate device_target data_dir yolov5_version pretrained testing_shape "
        "ckpt_file batch_size file_format img batch-size epochs cfg data weights hyp resume adam sync-bn multi-scale "
        "rect noautoanchor nosave notest evolve bucket cache-images single-cls local_rank workers name device logdir "
        "conf-thres iou-thres task save-json verbose merge augment"
    )
    missing = [flag for flag in flags.split() if not re.search(rf"`--{re.escape(flag)}`", text)]
    assert missing == []

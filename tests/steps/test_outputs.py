"""Places of results: named after all that a result depends on, and after nothing else."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct

from kubeyolo import source
from kubeyolo.config.load import load_config
from kubeyolo.index import run_output
from kubeyolo.source import results_source, weights_source
from kubeyolo.steps.outputs import backbone_output, result_output, training_output
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec, training_identity

STORE = "minio://bucket/prefix"


def training(*sets: str, dataset: str = "d", backbone: str = "", code: str = "c") -> str:
    start = Place.of(backbone) if backbone else None
    return training_output(Place.of(STORE), load_config("yolov5n-r7", sets=sets), dataset, start, code).uri


def test_a_training_is_named_in_its_store() -> None:
    assert re.fullmatch(rf"{STORE}/trainings/yolov5n-r7-[0-9a-f]{{12}}", training())
    assert training() == training()


@pytest.mark.parametrize("pair", ["train.lr=0.5", "train.seed=1", "augment.mosaic=0", "train.processes=2"])
def test_what_the_weights_depend_on_is_in_the_name(pair: str) -> None:
    assert training(pair) != training()


def test_data_backbone_and_code_are_in_the_name() -> None:
    assert len({training(), training(dataset="e"), training(backbone="minio://bucket/b"), training(code="x")}) == 4


def test_a_backbone_is_in_the_name_by_its_content() -> None:
    one, other = "1" * 64, "2" * 64
    there = training(backbone=Place.of("minio://bucket/there").pinned(one).reference)
    assert there == training(backbone=Place.of("minio://bucket/elsewhere").pinned(one).reference) != training()
    assert there != training(backbone=Place.of("minio://bucket/there").pinned(other).reference)


@pytest.mark.parametrize("pair", ["data.workers=0", "train.log_interval=7", "quantize.max_drop=9", "evaluate.min_ap=1"])
def test_what_the_weights_do_not_depend_on_is_not(pair: str) -> None:
    assert training(pair) == training()


OWN = "[[10,13, 16,30, 33,23], [30,61, 62,45, 59,119], [116,90, 156,198, 373,326]]"
OTHER = list(range(2, 20))


def test_other_anchors_are_in_the_name_however_they_are_written() -> None:
    named = training(f"train.anchors={OTHER}")
    assert named == training(f"train.anchors={[OTHER[:6], OTHER[6:12], OTHER[12:]]}") != training()
    assert training(f"train.anchors={OWN}") == training("train.anchors=[]") == training()
    assert backbone(f"train.anchors={OTHER}") == backbone()


def test_a_training_without_anchors_of_its_own_has_the_identity_it_had_before_the_key() -> None:
    identity = training_identity(TrainingSpec(dataset="", output="", config=load_config()), "d", "", 1)
    assert "train.anchors" not in identity and identity["train.anchor_t"] == 4.0
    spec = TrainingSpec(dataset="", output="", config=load_config(sets=[f"train.anchors={OTHER}"]))
    changed = training_identity(spec, "d", "", 1)
    assert changed.pop("train.anchors")[0][0] == [2.0, 3.0] and changed == identity


def test_anchors_travel_to_the_step_that_trains() -> None:
    for text in ("[]", f"{OTHER}", OWN):
        config = load_config(sets=[f"train.anchors={text}"])
        given = StepSettings(model=config.model, store=STORE, code="c", config=read_sections(config, "train"))
        struct = MessageToDict(ParseDict(given.struct(), Struct()))
        assert StepSettings.parse(struct, "train").configuration().train == config.train


def backbone(*sets: str, images: str = "i", code: str = "c") -> str:
    return backbone_output(Place.of(STORE), load_config(sets=sets), images, code).uri


def test_a_backbone_follows_its_settings_and_images() -> None:
    assert backbone() == backbone("train.lr=0.5") == backbone("augment.mosaic=0") == backbone("train.log_interval=7")
    changed = [
        "pretrain.lr=0.5",
        "train.seed=3",
        "train.grad_clip=1",
        "pretrain.device_target=Ascend",
        "augment.hsv_h=0.1",
    ]
    assert len({backbone(), backbone(images="j"), backbone(code="x"), *map(backbone, changed)}) == 3 + len(changed)


def result(step: str, *sets: str, model: str = "yolov5n-r7", code: str = "c", **digests: str) -> str:
    sections = read_sections(load_config("yolov5n-r7", sets=sets), step)
    digests = {"bundle": "b", "dataset": "d", **digests}
    return result_output(Place.of(STORE), step, model, digests, sections, code).uri


def test_a_result_is_named_after_its_step_what_it_reads_its_settings_and_the_code() -> None:
    assert re.fullmatch(rf"{STORE}/results/evaluate/yolov5n-r7-[0-9a-f]{{12}}", result("evaluate"))
    others = [
        result("evaluate", "evaluate.iou_threshold=0.5"),
        result("evaluate", "evaluate.device_target=Ascend"),
        result("evaluate", bundle="c"),
        result("evaluate", dataset="e"),
        result("evaluate", runtime="onnx"),
        result("evaluate", code="x"),
    ]
    assert len({result("evaluate"), *others}) == 1 + len(others)
    assert result("quantize") != result("quantize", "quantize.max_drop=9")


@pytest.mark.parametrize("step", ["evaluate", "export_model", "quantize"])
def test_a_gate_on_ap_and_settings_that_a_step_does_not_read_are_not_in_the_name(step: str) -> None:
    assert result(step) == result(step, "evaluate.min_ap=0.5") == result(step, "train.lr=0.5", "augment.mosaic=0")


def test_versions_of_the_packages_that_compute_are_in_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    before = (training(), backbone(), result("evaluate"))
    monkeypatch.setattr("kubeyolo.steps.outputs.weights_versions", lambda: {"mindspore": "9"})
    after = (training(), backbone(), result("evaluate"))
    assert after[0] != before[0] and after[1] != before[1] and after[2] == before[2]
    monkeypatch.setattr("kubeyolo.steps.outputs.results_versions", lambda: {"onnxruntime": "9"})
    assert result("evaluate") != before[2] and training() == after[0]


@pytest.fixture
def rebuilt(tmp_path: Path) -> Callable[[dict[str, tuple[str, str]]], Path]:
    """A copy of the library in which some files are changed: by name, what is replaced, and by what."""

    def build(changes: dict[str, tuple[str, str]]) -> Path:
        root = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(Path(source.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__"))
        for name, (before, after) in changes.items():
            text = (root / name).read_text()
            assert before in text, name
            (root / name).write_text(text.replace(before, after, 1))
        return root

    return build


def test_a_rebuilt_library_finds_its_trainings_unless_a_loss_has_changed(
    rebuilt: Callable[[dict[str, tuple[str, str]]], Path],
) -> None:
    def places(root: Path) -> tuple[str, str]:
        return training(code=weights_source(root)), result("evaluate", code=results_source(root))

    now = places(rebuilt({}))
    reworded = rebuilt(
        {
            "losses/iou.py": ('"""', '"""Changed. '),
            "training/loop.py": ('_show(f"', '_show(f"changed '),
            "report/templates/style.css": ("{", "{ color: red; "),
        }
    )
    assert places(reworded)[0] == now[0]
    # The style is part of a report, and so of a result.
    assert places(reworded)[1] != now[1]
    assert places(rebuilt({"losses/iou.py": ('"""', '"""Changed. ')})) == now
    other = places(rebuilt({"losses/iou.py": ("return ", "return 2.0 * ")}))
    assert other[0] != now[0] and other[1] != now[1]


def test_what_belongs_to_a_run_is_found_by_its_name() -> None:
    assert run_output(Place.of(STORE), "my-run", "result.json").uri == f"{STORE}/runs/my-run/result.json"

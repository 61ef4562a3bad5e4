"""Names of trainings and backbones: made of all that their weights depend on, and of nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.errors import WorkError
from kubeyolo.steps.component import configuration, settings
from kubeyolo.steps.places import backbone_output, run_output, training_output
from kubeyolo.training.class_images import class_fingerprint

STORE = "minio://bucket/prefix"


def training(*sets: str, dataset: str = "d", backbone: str = "", code: str = "c") -> str:
    return training_output(STORE, load_config("yolov5n-r7", sets=sets), dataset, backbone, code)


def test_a_training_is_named_in_its_store() -> None:
    assert training().startswith(f"{STORE}/trainings/yolov5n-r7-")
    assert training() == training()


@pytest.mark.parametrize("pair", ["train.lr=0.5", "train.seed=1", "augment.mosaic=0", "train.processes=2"])
def test_what_the_weights_depend_on_is_in_the_name(pair: str) -> None:
    assert training(pair) != training()


def test_data_backbone_and_code_are_in_the_name() -> None:
    assert len({training(), training(dataset="e"), training(backbone="b"), training(code="x")}) == 4


@pytest.mark.parametrize("pair", ["data.workers=0", "train.log_interval=7", "quantize.max_drop=9", "evaluate.min_ap=1"])
def test_what_the_weights_do_not_depend_on_is_not(pair: str) -> None:
    assert training(pair) == training()


def test_a_backbone_follows_its_settings_and_images() -> None:
    def backbone(*sets: str, images: str = "i") -> str:
        return backbone_output(STORE, load_config(sets=sets), images, "c")

    assert backbone() == backbone("train.lr=0.5") == backbone("augment.mosaic=0") == backbone("train.log_interval=7")
    changed = ["pretrain.lr=0.5", "train.seed=3", "train.grad_clip=1", "train.device_target=GPU", "augment.hsv_h=0.1"]
    assert len({backbone(), backbone(images="j"), *map(backbone, changed)}) == 2 + len(changed)


def test_settings_of_other_sections_reach_the_pretraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubeyolo.steps import component, pretrain

    seen: list[tuple[str, Config]] = []

    def take(dataset: str, output: str, config: Config, *others: Any) -> None:
        seen.append((output, config))
        raise WorkError("seen")

    monkeypatch.setattr(pretrain, "pretrain_backbone", take)

    def call(train: dict[str, Any], augment: dict[str, Any], seed: int = 0) -> None:
        given: dict[str, Any] = dict.fromkeys(["dataset", "classification", "classification_fingerprint"], "")
        given |= {"dataset_digest": "d", "store": str(tmp_path), "model": "yolov5n-r7", "code_digest": "c"}
        given |= {"pretrain_overrides": {}, "train_overrides": train, "augment_overrides": augment, "seed": seed}
        with pytest.raises(SystemExit):
            component.pretrain_backbone(**given, metrics=cast(Any, None), report=cast(Any, None))

    call({}, {})
    call({"seed": 4.0, "grad_clip": 1.0, "device_target": "GPU"}, {"hsv_s": 0.25})
    call({"seed": 4.0}, {}, seed=9)
    assert len({output for output, _ in seen}) == 3
    config = seen[1][1]
    assert (config.train.seed, config.train.grad_clip, config.train.device_target) == (4, 1.0, "GPU")
    assert config.augment.hsv_s == 0.25
    assert seen[2][1].train.seed == 9


def test_images_by_class_of_no_known_fingerprint_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubeyolo.steps import component, pretrain

    seen: list[str] = []

    def take(dataset: str, output: str, *others: Any) -> None:
        seen.append(output)
        raise WorkError("seen")

    monkeypatch.setattr(pretrain, "pretrain_backbone", take)
    images = tmp_path / "classes"

    def output(fingerprint: str = "", **pretrain_overrides: Any) -> str:
        given: dict[str, Any] = dict.fromkeys(["train_overrides", "augment_overrides"], {})
        given |= {"dataset": "", "dataset_digest": "d", "store": str(tmp_path), "model": "yolov5n-r7", "seed": 0}
        given |= {"classification": str(images), "classification_fingerprint": fingerprint, "code_digest": "c"}
        with pytest.raises(SystemExit):
            component.pretrain_backbone(
                **given, pretrain_overrides=pretrain_overrides, metrics=cast(Any, None), report=cast(Any, None)
            )
        return seen[-1]

    for name in ("cat", "dog"):
        (images / name).mkdir(parents=True)
        for file in ("a.png", "b.png"):
            (images / name / file).write_bytes(f"{name} {file}".encode())
    first = output()
    assert output() == first == output(class_fingerprint(str(images)))
    (images / "dog" / "c.png").write_bytes(b"another")
    assert output() != first
    assert output(enabled=False) == output("d", enabled=False)


def test_the_other_steps_write_below_their_run() -> None:
    assert run_output(STORE, "my-run", "evaluate") == f"{STORE}/runs/my-run/evaluate"


def test_settings_that_were_not_made_leave_the_preset() -> None:
    knobs = settings(image_size=0, optimizer="", lr=0.0, max_epoch=5)
    config = configuration("yolov5n-r7", train=knobs, augment={})
    preset = load_config("yolov5n-r7")
    assert config.train.max_epoch == 5
    assert (config.train.lr, config.train.image_size, config.train.optimizer) == (
        preset.train.lr,
        preset.train.image_size,
        preset.train.optimizer,
    )


def test_numbers_that_went_through_a_pipeline_as_floats_are_whole_again() -> None:
    config = configuration("yolov5n-r7", train={"max_epoch": 5.0, "lr_epochs": [1.0, 2.0]})
    assert (config.train.max_epoch, config.train.lr_epochs) == (5, (1, 2))

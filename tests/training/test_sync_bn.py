"""Several processes with ``train.sync_bn`` train as one process with the images of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.training.extension import changed_keys
from kubeyolo.training.spec import TrainingSpec, refuse_changes, training_identity
from tests.training.synchronized import check_two_processes


def test_two_processes_train_as_one_with_the_images_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mindspore_ready: None
) -> None:
    check_two_processes(("yolov5n-r7",), 4, tmp_path, monkeypatch)


def identity(world: int, **train: object) -> dict[str, object]:
    config = load_config("yolov5n-r7", sets=[f"train.{key}={value}" for key, value in train.items()])
    return training_identity(TrainingSpec(dataset="d", output="o", config=config), "digest", "", world=world)


def test_the_setting_belongs_to_the_identity_of_several_processes() -> None:
    assert identity(1, sync_bn=True) == identity(1, sync_bn=False)
    assert "train.sync_bn" not in identity(1)
    stored = identity(2)
    assert stored.pop("train.sync_bn") is False
    assert changed_keys(stored, identity(2)) == []
    with pytest.raises(InputError, match=r"earlier version .*train\.sync_bn = False, now it is True; use --set"):
        refuse_changes(stored, identity(2, sync_bn=True), "o")

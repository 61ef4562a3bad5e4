"""What configure refuses of places and bundles before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kubeyolo.bundle import ONNX, WEIGHTS, BundleManifest
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.publishing import publish_bundle
from kubeyolo.steps.configure import configure
from kubeyolo.storage.place import Place


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_sample_dataset(tmp_path_factory.mktemp("places") / "shapes", train=3, val=2, image_size=(64, 64))


def bundle(folder: Path, *files: str, kind: str = "detector") -> str:
    folder.mkdir()
    for name in files:
        (folder / name).write_bytes(name.encode())
    manifest = BundleManifest(
        kind=kind,  # type: ignore[arg-type]
        model="yolov5n-r7",
        classes=("cat",),
        image_size=(64, 64),
        strides=(8, 16, 32),
        anchors=(((1.0, 2.0),),) * 3,
    )
    return publish_bundle(Place.of(folder / "bundle"), manifest, {name: folder / name for name in files}).uri


@pytest.mark.parametrize("folder", ["train", "val/store", "valid", "images/val/store"])
def test_a_store_among_the_images_is_refused(data: Path, folder: str) -> None:
    message = f"store .*/{folder} is in the folder of the images of .*; choose a folder next to"
    with pytest.raises(InputError, match=message):
        configure(DETECTOR_TRAINING, {"data": str(data), "store": f"{data}/{folder}"})


@pytest.mark.parametrize(
    ("files", "kind", "runtime", "message"),
    [
        ((WEIGHTS,), "detector", "int8", "runtime = int8 needs the file model-int8.onnx"),
        ((ONNX,), "detector", "mindspore", "runtime = mindspore needs the file weights.safetensors"),
        ((WEIGHTS,), "backbone", "mindspore", "this is the bundle of a backbone, not of a detector"),
    ],
)
def test_a_bundle_without_the_network_is_refused(
    data: Path, tmp_path: Path, files: tuple[str, ...], kind: str, runtime: str, message: str
) -> None:
    form = {"bundle": bundle(tmp_path / "b", *files, kind=kind), "data": str(data), "runtime": runtime}
    with pytest.raises(InputError, match=message):
        configure(MODEL_EVALUATION, form | {"store": str(tmp_path / "store")})


def test_the_pointer_to_the_current_model_is_one_however_it_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pointer.json").write_text(f'{{"data": "{data}"}}')
    form = {"pointer": str(tmp_path / "pointer.json"), "store": str(tmp_path / "store")}

    def run(latest: str) -> tuple[str, str]:
        configured = configure(DETECTOR_RETRAINING, form | {"settings": f'{{"retrain": {{"latest": "{latest}"}}}}'})
        return configured.name, configured.settings["promote"].latest

    path = str(tmp_path / "current.json")
    assert len({run(latest) for latest in ("current.json", path, f" {path}", "./current.json")}) == 1


def test_a_pointer_without_a_bundle_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "pointer.json").write_text(f'{{"data": "{data}"}}')
    (tmp_path / "current.json").write_text('{"bundle": ""}')
    settings = f"{{retrain: {{latest: {tmp_path / 'current.json'}}}}}"
    form = {"pointer": str(tmp_path / "pointer.json"), "store": str(tmp_path / "store"), "settings": settings}
    with pytest.raises(InputError, match=r"current\.json: bundle is empty; expected \{"):
        configure(DETECTOR_RETRAINING, form)


def test_what_is_not_a_file_among_the_images_is_named(tmp_path: Path) -> None:
    folder = generate_sample_dataset(tmp_path / "shapes", train=3, val=2, image_size=(64, 64))
    os.mkfifo(folder / "train" / "pipe.jpg")
    with pytest.raises(InputError, match=r"pipe\.jpg: not a regular file"):
        configure(DETECTOR_TRAINING, {"data": str(folder), "store": str(tmp_path / "store")})

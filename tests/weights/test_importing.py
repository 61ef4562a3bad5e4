from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from kubeyolo.bundle import WEIGHTS, open_bundle
from kubeyolo.errors import InputError
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_model
from kubeyolo.storage.place import Place
from kubeyolo.weights import names
from kubeyolo.weights.exporting import export_weights
from kubeyolo.weights.fit import WeightsMismatch, load_arrays
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.names import from_layout, to_layout
from tests.weights.arrays_of_yolov5n import MODEL, network, upstream_arrays
from tests.weights.torch_writer import Name, TorchFile, module_tree, ordered

CLS = Name("models.yolo", "DetectionModel")
HALF_ANCHORS = np.array(model_facts(MODEL).anchors) / np.array([8, 16, 32])[:, None, None]


def state_dict(path: Path, arrays: Mapping[str, NDArray[Any]]) -> Path:
    file = TorchFile()
    return file.write(path, ordered({name: file.tensor(array) for name, array in arrays.items()}))


def bundle_arrays(uri: str) -> dict[str, NDArray[np.float32]]:
    return load_file(open_bundle(Place.of(uri)).path(WEIGHTS))


def ours(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    facts = model_facts(MODEL)
    return {new: array for name, array in arrays.items() if (new := from_layout(name, facts, "yolov5")) is not None}


def same(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)


def test_import_predict_export_import_keeps_every_value(tmp_path: Path) -> None:
    arrays = upstream_arrays()
    first = import_weights(state_dict(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "first"))
    assert (first.layout, first.format, first.arrays) == ("yolov5", "torch", len(arrays))
    assert first.values == sum(array.size for array in arrays.values())
    same(bundle_arrays(first.bundle), ours(arrays))
    detector = build_model(MODEL, 3)
    load_arrays(detector, arrays, "yolov5")
    detector.set_train(False)
    raws = detector(ms.Tensor(np.full((1, 3, 64, 64), 0.5, np.float32)))
    assert [raw.shape for raw in raws] == [(1, 3, 8, 8, 8), (1, 3, 4, 4, 8), (1, 3, 2, 2, 8)]
    same({parameter.name: parameter.asnumpy() for parameter in detector.get_parameters()}, ours(arrays))
    export_weights(first.bundle, tmp_path / "own.safetensors")
    export_weights(first.bundle, tmp_path / "theirs.safetensors", layout="yolov5")
    same(load_file(tmp_path / "theirs.safetensors"), arrays)
    for name, layout in (("own", "kubeyolo"), ("theirs", "yolov5")):
        second = import_weights(tmp_path / f"{name}.safetensors", MODEL, str(tmp_path / f"second-{name}"))
        assert second.layout == layout
        files = [open_bundle(Place.of(uri)).manifest.files[WEIGHTS] for uri in (first.bundle, second.bundle)]
        assert files[0] == files[1]


def test_a_training_checkpoint_gives_its_classes_and_half_precision_weights(tmp_path: Path) -> None:
    arrays = {name: array.astype(np.float16) for name, array in upstream_arrays().items()}
    buffers = {
        "model.0.bn.num_batches_tracked": np.array(7),
        "model.24.anchors": HALF_ANCHORS.astype(np.float16),
    }
    file = TorchFile()
    tree = {"model": None, "ema": module_tree(file, {**arrays, **buffers}, CLS, names=["a", "b", "c"]), "epoch": 3}
    imported = import_weights(file.write(tmp_path / "best.pt", tree), MODEL, str(tmp_path / "bundle"))
    assert imported.classes == ("a", "b", "c")
    assert imported.part == "ema"
    manifest = open_bundle(Place.of(imported.bundle)).manifest
    assert manifest.classes == ("a", "b", "c")
    assert manifest.anchors == model_facts(MODEL).anchors
    assert manifest.image_size == (640, 640)
    assert manifest.kind == "detector"
    assert manifest.config["imported"]["file"] == "best.pt"
    same(bundle_arrays(imported.bundle), ours({n: a.astype(np.float32) for n, a in arrays.items()}))


def test_anchors_of_the_file_are_kept_when_they_are_not_the_published_ones(tmp_path: Path) -> None:
    arrays = {**upstream_arrays(), "model.24.anchors": (HALF_ANCHORS * 1.5).astype(np.float32)}
    imported = import_weights(state_dict(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "bundle"))
    anchors = np.array(open_bundle(Place.of(imported.bundle)).manifest.anchors)
    np.testing.assert_allclose(anchors, np.array(model_facts(MODEL).anchors) * 1.5)
    export_weights(imported.bundle, tmp_path / "b.safetensors")
    again = import_weights(tmp_path / "b.safetensors", MODEL, str(tmp_path / "again"))
    np.testing.assert_array_equal(open_bundle(Place.of(again.bundle)).manifest.anchors, anchors)


def test_class_names_are_numbered_when_nobody_gives_them(tmp_path: Path) -> None:
    path = state_dict(tmp_path / "a.pt", upstream_arrays())
    assert import_weights(path, MODEL, str(tmp_path / "b")).classes == ("class_0", "class_1", "class_2")
    assert import_weights(path, MODEL, str(tmp_path / "c"), classes=["x", "y", "z"]).classes == ("x", "y", "z")


@pytest.mark.parametrize(
    ("number", "classes", "message"),
    [
        (4, None, "has 3 classes, but 4 are requested"),
        (None, ["x"], "has 3 classes, but 1 are requested"),
        (3, ["x"], "num_classes is 3, but 1 class names are given"),
        (None, ["x", "y", "x"], "class 'x' is given twice"),
        (None, [], "there are no class names"),
    ],
)
def test_numbers_of_classes_that_differ_are_refused(
    tmp_path: Path, number: int | None, classes: list[str] | None, message: str
) -> None:
    path = state_dict(tmp_path / "a.pt", upstream_arrays())
    with pytest.raises(InputError, match=message):
        import_weights(path, MODEL, str(tmp_path / "bundle"), number, classes)
    assert not (tmp_path / "bundle").exists()


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    arrays = upstream_arrays()
    arrays["model.0.conv.weight"] = np.zeros((16, 3, 3, 3), np.float32)
    arrays["model.99.conv.weight"] = np.zeros((1, 1), np.float32)
    del arrays["model.2.cv1.bn.running_var"]
    with pytest.raises(WeightsMismatch, match="not the weights of model 'yolov5n-r7'") as error:
        import_weights(state_dict(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "bundle"))
    rows = {row.name: (row.in_file, row.expected, row.found) for row in error.value.rows}
    assert rows == {
        "backbone.stem.conv.weight": ("model.0.conv.weight", (16, 3, 6, 6), (16, 3, 3, 3)),
        "backbone.stage2.cv1.bn.moving_variance": ("model.2.cv1.bn.running_var", (16,), None),
        "model.99.conv.weight": ("model.99.conv.weight", None, (1, 1)),
    }
    assert not (tmp_path / "bundle").exists()


def test_weights_of_another_program_are_refused_with_a_few_names(tmp_path: Path) -> None:
    path = state_dict(tmp_path / "a.pt", {"layer1.weight": np.zeros(3, np.float32)})
    with pytest.raises(
        InputError, match="none of its 1 arrays .'layer1.weight'. has the name of a parameter of model 'yolov5n"
    ):
        import_weights(path, MODEL, str(tmp_path / "bundle"))


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    arrays = upstream_arrays()
    arrays["model.1.bn.running_var"] = np.full_like(arrays["model.1.bn.running_var"], np.nan)
    with pytest.raises(InputError, match=r"'model\.1\.bn\.running_var' holds values that are infinite or NaN"):
        import_weights(state_dict(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "bundle"))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    arrays = upstream_arrays()
    path = state_dict(tmp_path / "a.pt", {prefix + name: array for name, array in arrays.items()})
    same(bundle_arrays(import_weights(path, MODEL, str(tmp_path / "bundle")).bundle), ours(arrays))


def test_a_mindspore_checkpoint_with_optimizer_state_is_read(tmp_path: Path) -> None:
    arrays = ours(upstream_arrays())
    extra = {"moments.backbone.stem.conv.weight": np.zeros(3, np.float32), "learning_rate": np.float32(0.1)}
    saved = [{"name": name, "data": ms.Tensor(array)} for name, array in {**arrays, **extra}.items()]
    ms.save_checkpoint(saved, str(tmp_path / "a.ckpt"))
    imported = import_weights(tmp_path / "a.ckpt", MODEL, str(tmp_path / "bundle"))
    assert (imported.format, imported.layout) == ("mindspore", "kubeyolo")
    same(bundle_arrays(imported.bundle), arrays)


@pytest.mark.parametrize("strip", ["", "backbone."])
def test_a_backbone_alone_becomes_a_backbone_bundle(tmp_path: Path, strip: str) -> None:
    arrays = {name: array for name, array in ours(upstream_arrays()).items() if name.startswith("backbone.")}
    path = tmp_path / "a.safetensors"
    save_file({name.removeprefix(strip): array for name, array in arrays.items()}, path)
    with pytest.raises(WeightsMismatch):
        import_weights(path, MODEL, str(tmp_path / "bundle"))
    imported = import_weights(path, MODEL, str(tmp_path / "bundle"), backbone=True)
    manifest = open_bundle(Place.of(imported.bundle)).manifest
    assert (manifest.kind, manifest.classes, imported.unused) == ("backbone", (), 0)
    same(bundle_arrays(imported.bundle), arrays)


def test_the_backbone_is_taken_out_of_a_whole_detector(tmp_path: Path) -> None:
    arrays = upstream_arrays()
    imported = import_weights(state_dict(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "bundle"), backbone=True)
    found = bundle_arrays(imported.bundle)
    assert all(name.startswith("backbone.") for name in found)
    assert imported.unused == len(arrays) - len(found) > 0


def cfg_layers(_: object) -> dict[int, str]:
    """Number the convolutions of yolov5n as if there were a cfg file of it."""
    places = [name.removesuffix(".conv.weight") for name in network().shapes if name.endswith(".conv.weight")]
    heads = [bias.removesuffix(".bias") for bias in network().output_biases]
    return {2 * number: place for number, place in enumerate(places + heads)}


def test_darknet_files_go_in_and_out_for_models_with_a_cfg_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = upstream_arrays()
    first = import_weights(state_dict(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "first"))
    with pytest.raises(InputError, match="cannot be exported in darknet format; give a name that ends in .safetensors"):
        export_weights(first.bundle, tmp_path / "a.weights")
    assert not (tmp_path / "a.weights").exists()
    (tmp_path / "b.weights").write_bytes(bytes(64))
    with pytest.raises(InputError, match="model 'yolov5n-r7' cannot be imported from darknet format"):
        import_weights(tmp_path / "b.weights", MODEL, str(tmp_path / "second"))
    monkeypatch.setattr(names, "_LAYERS", {**names._LAYERS, ("yolov5-r7", "darknet"): cfg_layers})
    export_weights(first.bundle, tmp_path / "a.weights")
    assert (tmp_path / "a.weights").stat().st_size == 20 + 4 * sum(array.size for array in arrays.values())
    second = import_weights(tmp_path / "a.weights", MODEL, str(tmp_path / "second"))
    assert (second.format, second.layout, len(second.classes)) == ("darknet", "darknet", 3)
    same(bundle_arrays(second.bundle), ours(arrays))
    with pytest.raises(InputError, match="has 3 classes, but 4 are requested"):
        import_weights(tmp_path / "a.weights", MODEL, str(tmp_path / "third"), num_classes=4)
    backbone = import_weights(tmp_path / "a.weights", MODEL, str(tmp_path / "third"), backbone=True)
    wanted = {name: array for name, array in ours(arrays).items() if name.startswith("backbone.")}
    same(bundle_arrays(backbone.bundle), wanted)
    export_weights(backbone.bundle, tmp_path / "backbone.weights")
    again = import_weights(tmp_path / "backbone.weights", MODEL, str(tmp_path / "fourth"), backbone=True)
    same(bundle_arrays(again.bundle), wanted)
    theirs = {to_layout(name, model_facts(MODEL), "darknet"): array for name, array in ours(arrays).items()}
    same({from_layout(name, model_facts(MODEL), "darknet") or "": a for name, a in theirs.items()}, ours(arrays))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "not in PyTorch's zip format"),
        ("a.pth", bytes(9), "not in PyTorch's zip format or any other known format .9 bytes"),
        ("a.bin", b"what \0 is this", "format of this file is not known"),
        ("a.safetensors", b"\x05", "not a readable safetensors file"),
        ("a.ckpt", b"\x08\xff", "not a readable MindSpore checkpoint"),
    ],
)
def test_other_files_are_refused_with_a_remedy(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_weights(tmp_path / name, MODEL, str(tmp_path / "bundle"))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            import_weights(path, MODEL, str(tmp_path / "bundle"))


def test_safetensors_carry_what_a_bundle_needs(tmp_path: Path) -> None:
    path = state_dict(tmp_path / "a.pt", upstream_arrays())
    imported = import_weights(path, MODEL, str(tmp_path / "bundle"), classes=["x", "y", "z"])
    exported = export_weights(imported.bundle, tmp_path / "b.safetensors")
    assert (exported.format, exported.layout) == ("safetensors", "kubeyolo")
    header = (tmp_path / "b.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    assert json.loads(header[8 : 8 + length])["__metadata__"]["classes"] == '["x", "y", "z"]'
    again = import_weights(tmp_path / "b.safetensors", MODEL, str(tmp_path / "again"))
    assert again.classes == ("x", "y", "z")


def test_exports_to_other_formats_are_refused(tmp_path: Path) -> None:
    path = state_dict(tmp_path / "a.pt", upstream_arrays())
    bundle = import_weights(path, MODEL, str(tmp_path / "bundle")).bundle
    with pytest.raises(InputError, match=r"ends in \.safetensors or \.weights"):
        export_weights(bundle, tmp_path / "b.pt")
    with pytest.raises(InputError, match="no names in layout 'darknet'; known: kubeyolo, yolov5"):
        export_weights(bundle, tmp_path / "b.safetensors", "darknet")
    with pytest.raises(InputError, match="there is no folder"):
        export_weights(bundle, tmp_path / "absent" / "b.safetensors")

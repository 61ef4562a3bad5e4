"""Exported networks that are made to harm, or that do not belong to their bundle."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kubeyolo.bundle import MINDIR, ONNX, BundleManifest, UnreadableManifest, read_manifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation import network_checks
from kubeyolo.evaluation.network_checks import check_levels, check_mindir_file, check_onnx_file, check_predictions
from kubeyolo.evaluation.network_files import check_facts
from kubeyolo.evaluation.runtimes import OnnxRuntime
from kubeyolo.models.named_facts import model_facts
from tests.costs import measured

FACTS = model_facts("yolov5n-r7")
MANIFEST = BundleManifest(
    model="yolov5n-r7", classes=("a", "b"), image_size=(64, 64), strides=FACTS.strides, anchors=FACTS.anchors
)
Edit = Callable[[onnx.ModelProto], None]


def network(classes: int = 2, edit: Edit = lambda model: None) -> bytes:
    """Return an ONNX file whose outputs are zeros of the shapes of a detector."""
    constants = [numpy_helper.from_array(np.zeros(1, np.float32), "zero")]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    outputs = []
    for stride in FACTS.strides:
        shape = [1, 3, 64 // stride, 64 // stride, 5 + classes]
        constants.append(numpy_helper.from_array(np.zeros(shape, np.float32), f"level_{stride}"))
        constants.append(numpy_helper.from_array(np.array([-1, 1, 1, 1, 1]), f"shape_{stride}"))
        nodes.append(helper.make_node("Reshape", ["nothing", f"shape_{stride}"], [f"column_{stride}"]))
        nodes.append(helper.make_node("Add", [f"column_{stride}", f"level_{stride}"], [f"raw_{stride}"]))
        outputs.append(helper.make_tensor_value_info(f"raw_{stride}", TensorProto.FLOAT, ["N", *shape[1:]]))
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, 64, 64])
    graph = helper.make_graph(nodes, "g", [image], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    edit(model)
    return bytes(model.SerializeToString())


def external(model: onnx.ModelProto) -> None:
    leak = TensorProto(name="leak", data_type=TensorProto.UINT8, dims=[8], data_location=TensorProto.EXTERNAL)
    leak.external_data.add(key="location", value="../secret")
    model.graph.initializer.append(leak)


def external_in_a_branch(model: onnx.ModelProto) -> None:
    inner = onnx.ModelProto()
    external(inner)
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner.graph, else_branch=inner.graph))


def endless(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["trips", "on", "nothing"], ["out"], body=onnx.GraphProto()))


def unknown_domain(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Evil", ["images"], ["e"], domain="evil.\x1b[2J"))


def short_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].raw_data = model.graph.initializer[1].raw_data[:-4]


def huge_tensor(model: onnx.ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [1 << 40, 1 << 20]


def deep(model: onnx.ModelProto) -> None:
    graph = onnx.GraphProto()
    for _ in range(30):
        outer = onnx.GraphProto()
        outer.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph))
        graph = outer
    model.graph.node.append(graph.node[0])


def other_input(shape: list[Any], kind: int = TensorProto.FLOAT) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", kind, shape))

    return edit


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "onnxruntime cannot load it"),
    "cut off": (network()[:500], "is cut off"),
    "noise": (bytes(range(256)) * 4, "onnxruntime cannot load it"),
    "external": (network(edit=external), "'leak' is stored in another file"),
    "external in a branch": (network(edit=external_in_a_branch), "'leak' is stored in another file"),
    "endless": (network(edit=endless), "has the operation Loop, which may never end"),
    "domain": (network(edit=unknown_domain), r"unknown domain 'evil.\\x1b\[2J'"),
    "short": (network(edit=short_tensor), "'level_8' has .* which do not fit its shape"),
    "huge": (network(edit=huge_tensor), "'level_8' has .* which do not fit its shape"),
    "deep": (network(edit=deep), "nested more than 40 deep"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_onnx_files_are_refused_before_a_runtime_sees_them(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / ONNX
    path.write_bytes(data)
    with measured() as costs, pytest.raises(InputError, match=words) as raised:
        check_onnx_file(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).isprintable()
    assert costs.megabytes < 20


def test_the_number_of_fields_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_checks, "_MOST_FIELDS", 100)
    (tmp_path / ONNX).write_bytes(b"\x08\x01" * 101)
    with pytest.raises(InputError, match="more than 100 fields"):
        check_onnx_file(tmp_path / ONNX)


def loaded(tmp_path: Path, data: bytes) -> OnnxRuntime:
    path = tmp_path / ONNX
    path.write_bytes(data)
    runtime = OnnxRuntime(path, MANIFEST)
    runtime.check_classes(MANIFEST)
    return runtime


def test_a_network_that_fits_its_bundle_runs(tmp_path: Path) -> None:
    levels = loaded(tmp_path, network()).raw(np.zeros((2, 3, 64, 64), np.float32))
    assert [level.shape for level in levels] == [(2, 3, 8, 8, 7), (2, 3, 4, 4, 7), (2, 3, 2, 2, 7)]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (network(classes=300), "has 2 classes, which need 7 numbers for a box"),
        (network(edit=other_input(["N", 3, 64])), "onnxruntime cannot load it|expected float32"),
        (network(edit=other_input(["N", 1, 64, 64])), "expected float32 of shape"),
        (
            network(edit=other_input(["N", 3, 64, 64], TensorProto.DOUBLE)),
            "onnxruntime cannot load it|expected float32",
        ),
    ],
    ids=["classes", "axes", "channels", "type"],
)
def test_inputs_and_outputs_must_fit_the_bundle(
    tmp_path: Path, data: bytes, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=words):
        loaded(tmp_path, data)
    assert capfd.readouterr() == ("", "")


def test_errors_of_a_run_are_one_line_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: onnxruntime cannot run it") as raised:
        loaded(tmp_path, network()).raw(np.zeros((1, 3, 32, 64), np.float32))
    assert str(raised.value).isprintable()
    assert capfd.readouterr() == ("", "")


def test_outputs_of_other_shapes_are_refused_when_the_network_has_run() -> None:
    path, size = Path("model.mindir"), (2, 3, 64, 64)
    good = [np.zeros((2, 3, side, side, 7), np.float32) for side in (8, 4, 2)]
    check_levels(path, good, size, MANIFEST)
    for wrong in (
        good[:2],
        [*good[:2], good[2][..., :6]],
        [*good[:2], good[2][:1]],
        [*good[:2], good[2].astype(np.float64)],
        good[::-1],
    ):
        with pytest.raises(InputError, match=r"^model.mindir: its outputs have shapes .* with 2 classes needs float32"):
            check_levels(path, wrong, size, MANIFEST)
    check_predictions(path, np.zeros((2, 9, 7), np.float32), 2, MANIFEST)
    for shape in ((2, 9, 8), (1, 9, 7), (9, 7), (2, 9, 7, 1)):
        with pytest.raises(InputError, match=r"needs float32 \(2, boxes, 7\)"):
            check_predictions(path, np.zeros(shape, np.float32), 2, MANIFEST)


def message(number: int, content: bytes) -> bytes:
    length = len(content)
    parts = []
    while length > 127:
        parts.append(length & 127 | 128)
        length >>= 7
    return bytes([number << 3 | 2, *parts, length]) + content


def mindir(tensor: bytes) -> bytes:
    return message(1, b"0.1.0") + message(7, message(3, tensor))


FLOATS = b"\x08\x02\x10\x01" + message(7, b"w")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a readable MINDIR file"),
        (mindir(FLOATS + message(9, bytes(8)))[:-3], "is cut off"),
        (mindir(FLOATS + message(9, bytes(4))), "'w' has 4 bytes, which do not fit its shape"),
        (mindir(b"\x08\xff\xff\xff\xff\x0f" + FLOATS[2:] + message(9, bytes(8))), "'w' has 8 bytes, which do not fit"),
        (mindir(FLOATS + message(12, message(1, b"/etc/passwd"))), "'w' is stored in another file"),
    ],
    ids=["empty", "cut off", "short", "huge", "external"],
)
def test_mindir_files_are_refused_before_mindspore_sees_them(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / MINDIR
    path.write_bytes(data)
    with pytest.raises(InputError, match=words):
        check_mindir_file(path)


def test_a_mindir_file_of_the_right_lengths_passes(tmp_path: Path) -> None:
    path = tmp_path / MINDIR
    path.write_bytes(mindir(FLOATS + message(9, bytes(8))))
    check_mindir_file(path)


NAN, INFINITE = float("nan"), float("inf")
LEVEL = [[10, 13], [16, 30], [33, 23]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", []),
        ("category_ids", [10**30, 1]),
        ("category_ids", [1]),
        ("image_size", [0, 64]),
        ("image_size", [-64, 64]),
        ("image_size", [10**9, 10**9]),
        ("strides", []),
        ("strides", [0, 8, 16]),
        ("strides", [-8, 16, 32]),
        ("strides", [8, 8, 8]),
        ("strides", [8, 16, 10**30]),
        ("anchors", [LEVEL, LEVEL, [*LEVEL[:2], [NAN, 1]]]),
        ("anchors", [LEVEL, LEVEL, [*LEVEL[:2], [INFINITE, 1]]]),
        ("anchors", [LEVEL, LEVEL, [*LEVEL[:2], [-1, 1]]]),
        ("anchors", [LEVEL, LEVEL, [*LEVEL[:2], [0, 1]]]),
        ("preprocessing", {"divisor": 0}),
        ("preprocessing", {"divisor": -1}),
        ("preprocessing", {"divisor": NAN}),
        ("preprocessing", {"divisor": 1e-320}),
        ("preprocessing", {"fill": 256}),
        ("preprocessing", {"levels": [NAN, 1]}),
        ("preprocessing", {"levels": [5, 5]}),
    ],
)
def test_values_with_which_nothing_can_be_decoded_are_refused(key: str, value: Any) -> None:
    document = json.loads(MANIFEST.document) | {key: value}
    with pytest.raises(
        UnreadableManifest, match=f"^file:///b/bundle.json: {key}.*; publish the bundle again$"
    ) as raised:
        read_manifest(json.dumps(document).encode(), "file:///b/bundle.json")
    assert len(str(raised.value)) < 400


def test_strides_and_anchors_must_be_those_of_the_model() -> None:
    read_manifest(MANIFEST.document, "b")
    check_facts(MANIFEST, "b")
    with pytest.raises(InputError, match=r"strides is \[4, 16, 32\], but model yolov5n-r7 has \[8, 16, 32\]"):
        check_facts(MANIFEST.model_copy(update={"strides": (4, 16, 32)}), "b")
    for anchors in ((), ((), (), ()), FACTS.anchors[:2], tuple(level[:1] for level in FACTS.anchors)):
        shape = str([len(level) for level in anchors])
        with pytest.raises(
            InputError, match=rf"levels of {re.escape(shape)} anchors, but .* has 3 levels of 3; publish"
        ):
            check_facts(MANIFEST.model_copy(update={"anchors": anchors}), "b")


def test_infinite_numbers_in_json_are_not_anchors() -> None:
    document = MANIFEST.document.replace(b"10.0,", b"1e400,", 1)
    assert document != MANIFEST.document
    with pytest.raises(UnreadableManifest, match="anchors"):
        read_manifest(document, "b")


def test_numbers_of_other_types_have_no_length(tmp_path: Path) -> None:
    path = tmp_path / MINDIR
    path.write_bytes(mindir(b"\x08\x02\x10\x12" + message(9, struct.pack("<h", 7))))
    check_mindir_file(path)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kubeyolo.cli.app import main
from kubeyolo.errors import InputError
from kubeyolo.weights.darknet_networks import NETWORKS, darknet_network
from kubeyolo.weights.importing import import_weights
from kubeyolo.weights.network_parameters import network_parameters
from kubeyolo.weights.other_networks import is_fused, model_here, other_network
from tests.weights.arrays_of_yolov5n import MODEL, upstream_arrays
from tests.weights.torch_writer import TorchFile, ordered

Shape = tuple[int, ...]
_DFL = {"model.22.dfl.conv.weight": (1, 16, 1, 1), "model.22.cv3.0.0.conv.weight": (80, 64, 3, 3)}
_YOLOV5 = {"model.0.conv.weight": (16, 3, 6, 6), "model.2.cv1.conv.weight": (16, 32, 1, 1)}


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    file = TorchFile()
    return file.write(path, ordered({name: file.tensor(array) for name, array in arrays.items()}))


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (_DFL, "YOLOv8"),
        ({f"model.{name}": shape for name, shape in _DFL.items()}, "YOLOv8"),
        ({**_DFL, "model.22.proto.cv1.conv.weight": (1,)}, "YOLOv8 for segmentation"),
        ({**_DFL, "model.22.cv4.0.0.conv.weight": (1,)}, "YOLOv8 for oriented boxes or poses"),
        ({**_DFL, "model.2.cv2.0.m.0.cv1.conv1.conv.weight": (1,)}, "YOLOv9"),
        ({"model.38.dfl2.conv.weight": (1,)}, "YOLOv9"),
        ({**_DFL, "model.23.one2one_cv2.0.0.conv.weight": (1,)}, "YOLOv10"),
        ({"model.23.dfl.conv.weight": (1,), "model.10.m.0.attn.qkv.conv.weight": (1,)}, "YOLO11"),
        ({"model.21.dfl.conv.weight": (1,), "model.6.m.0.0.attn.qkv.conv.weight": (1,)}, "YOLO12"),
        ({"backbone.stem.rbr_dense.conv.weight": (1,), "backbone.ERBlock_2.0.rbr_dense.conv.weight": (1,)}, "YOLOv6"),
        ({"model.105.ia.0.implicit": (1,), "model.105.m.0.weight": (255,)}, "YOLOv7"),
        ({"model.77.m.0.weight": (255,)}, "YOLOv7"),
        ({"backbone.backbone.stem.conv.conv.weight": (1,), "head.cls_preds.0.weight": (1,)}, "YOLOX"),
        ({"model.28.dec_bbox_head.0.layers.0.weight": (1,)}, "RT-DETR"),
        ({"decoder.dec_score_head.0.weight": (1,), "decoder.enc_score_head.weight": (1,)}, "RT-DETR"),
        ({"roi_heads.box_predictor.cls_score.weight": (1,)}, "Faster R-CNN"),
        ({"roi_heads.mask_predictor.conv5_mask.weight": (1,), "rpn.head.conv.weight": (1,)}, "Mask R-CNN"),
        ({"head.classification_head.cls_logits.weight": (1,)}, "RetinaNet"),
        ({"head.classification_head.module_list.0.weight": (1,)}, "SSD"),
        ({"layer1.0.conv1.weight": (1,), "fc.weight": (1,)}, "ResNet, a classifier"),
        ({**_YOLOV5, "model.24.proto.cv1.conv.weight": (1,)}, "YOLOv5 for segmentation (yolov5-seg)"),
        ({**_YOLOV5, "model.9.linear.weight": (1,)}, "YOLOv5, a classifier (yolov5-cls)"),
        ({**_YOLOV5, "model.33.m.3.weight": (255,)}, "YOLOv5 with four levels for large images (P6, such as yolov5n6)"),
        ({**_YOLOV5, "model.24.m.0.weight": (255,), "model.24.m.1.weight": (255,)}, "YOLOv5 with 2 levels"),
        ({"something.else": (1,)}, None),
        (_YOLOV5, None),
    ],
)
def test_families_are_told_by_their_arrays(names: dict[str, Shape], family: str | None) -> None:
    assert other_network(names) == family


def test_models_here_are_not_taken_for_others() -> None:
    shapes = {name: array.shape for name, array in upstream_arrays().items()}
    assert (model_here(shapes), other_network(shapes), is_fused(shapes)) == (MODEL, None, False)
    larger = {**shapes, "model.0.conv.weight": (32, 3, 6, 6)}
    assert model_here(larger) == "yolov5s-r7"
    focus = {name: shape for name, shape in larger.items() if name != "model.0.conv.weight"}
    assert model_here({**focus, "model.0.conv.conv.weight": (32, 12, 3, 3)}) == "yolov5s"
    assert model_here({"model.31.m.0.weight": (340,), "model.2.cv4.conv.weight": (64,)}) == "yolov4-p5"


def test_another_family_is_one_line_and_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {name: np.zeros(shape, np.float32) for name, shape in {**_YOLOV5, **_DFL}.items()}
    path = write(tmp_path / "yolov8n.pt", arrays)
    for more in ((), ("--classes", str(tmp_path / "names.txt")), ("--backbone",)):
        (tmp_path / "names.txt").write_text("a\nb\n")
        with pytest.raises(SystemExit) as end:
            main(["weights", "import", str(path), "--model", MODEL, "-o", str(tmp_path / "bundle"), *more])
        printed = capsys.readouterr()
        assert (end.value.code, printed.out, len(printed.err.splitlines())) == (2, "", 1)
        assert f"{path}: holds YOLOv8, which is not a supported model" in printed.err
    assert not (tmp_path / "bundle").exists()


def test_the_right_model_is_named(tmp_path: Path) -> None:
    arrays = upstream_arrays()
    arrays["model.0.conv.weight"] = np.zeros((32, 3, 6, 6), np.float32)
    with pytest.raises(InputError, match="holds the weights of yolov5s-r7, not of yolov5n-r7; give --model yolov5s-r7"):
        import_weights(write(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "bundle"))


def test_the_backbone_of_a_segmenting_network_is_offered(tmp_path: Path) -> None:
    arrays = {**upstream_arrays(), "model.24.proto.cv1.conv.weight": np.zeros((1, 1, 1, 1), np.float32)}
    path = write(tmp_path / "a.pt", arrays)
    with pytest.raises(InputError, match="holds YOLOv5 for segmentation .*; import its backbone with --backbone or"):
        import_weights(path, MODEL, str(tmp_path / "bundle"))
    assert import_weights(path, MODEL, str(tmp_path / "bundle"), backbone=True).kind == "backbone"


def test_fused_batch_normalization_is_named(tmp_path: Path) -> None:
    arrays = {name: array for name, array in upstream_arrays().items() if ".bn." not in name}
    arrays["model.0.conv.bias"] = np.zeros(16, np.float32)
    with pytest.raises(InputError, match="convolutions with fused batch normalization"):
        import_weights(write(tmp_path / "a.pt", arrays), MODEL, str(tmp_path / "bundle"))


# Bytes of the published files, of which 20 are the header (16 in the oldest).
@pytest.mark.parametrize(
    ("name", "length", "header", "classes"),
    [
        ("yolov3", 248_007_048, 20, 80),
        ("yolov3-spp", 252_209_544, 20, 80),
        ("yolov3-tiny", 35_434_956, 20, 80),
        ("yolov4", 257_717_640, 20, 80),
        ("yolov4-tiny", 24_251_276, 20, 80),
        ("yolov2", 203_934_260, 16, 80),
        ("yolov2-tiny", 44_948_600, 20, 80),
    ],
)
def test_published_files_of_darknet_are_told_by_their_length(name: str, length: int, header: int, classes: int) -> None:
    found = darknet_network((length - header) // 4)
    assert found is not None
    assert (found[0].name, found[1]) == (name, classes)


def test_the_counts_of_a_network_are_those_of_its_convolutions() -> None:
    convolutions = network_parameters("yolov4-tiny").darknet_convolutions()
    sizes = [sum(convolution.with_classes(number).size for convolution in convolutions) for number in (0, 1)]
    known = next(network for network in NETWORKS if network.name == "yolov4-tiny")
    assert (known.base, known.each) == (sizes[0], sizes[1] - sizes[0])


def test_a_weights_file_of_another_network_is_named(tmp_path: Path) -> None:
    path = tmp_path / "yolov3-tiny.weights"
    with path.open("wb") as file:
        file.write(np.array([0, 2, 0, 0, 0], np.int32).tobytes())
        file.truncate(35_434_956)
    for backbone in (False, True):
        with pytest.raises(
            InputError, match=r"8858734 weights, which fit yolov3-tiny with 80 classes; yolov4-tiny has 60"
        ):
            import_weights(path, "yolov4-tiny", str(tmp_path / "bundle"), backbone=backbone)
    with path.open("r+b") as file:
        file.truncate(24_251_276 // 8 * 4)
    with pytest.raises(InputError, match="the file is cut off, or from a smaller network"):
        import_weights(path, "yolov4-tiny", str(tmp_path / "bundle"))

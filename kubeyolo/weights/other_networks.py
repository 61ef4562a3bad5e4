"""Recognizes from the arrays of a file that its network is not supported, or is a different model.

Programs number or name their layers in different ways, so that a few names identify the network of a file. This is only
used for error messages, after the arrays did not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kubeyolo.models.named_facts import model_names

Shapes = Mapping[str, tuple[int, ...]]

_PREFIXES = ("module.", "ema_model.", "_orig_mod.")
_HEAD_LAYER = re.compile(r"model\.(\d+)\.m\.(\d+)\.weight")


class _Family(NamedTuple):
    """A family, and patterns of names; a file of the family has a matching name for each pattern."""

    name: str
    patterns: tuple[str, ...]


# From the particular to the general: the first family that fits is used.
_FAMILIES = (
    _Family("YOLOv10", (r"model\.\d+\.one2one_cv2\.",)),
    _Family("RT-DETR", (r"(model\.\d+|decoder|module\.decoder)\.(dec_bbox_head|enc_score_head)\.",)),
    _Family("RT-DETR", (r"model\.decoder\.layers\.\d+\.encoder_attn\.(sampling_offsets|attention_weights)\.",)),
    _Family("YOLO-World", (r"model\.\d+\.dfl\.", r".*\.attn\.gl\.")),
    _Family("YOLO-NAS", (r"(net\.|model\.)?heads\.head1\.(cls_convs|bbox_stem|cls_pred)",)),
    _Family("YOLOv9", (r"model\.\d+\.dfl2\.",)),
    _Family("YOLOv9", (r"model\.\d+\.dfl\.", r"model\.\d+\.cv2\.0\.m\.0\.cv1\.conv[12]?\.")),
    _Family("YOLO12", (r"model\.\d+\.dfl\.", r"model\.\d+\.m\.\d+\.\d+\.attn\.qkv\.")),
    _Family("YOLO11", (r"model\.\d+\.dfl\.", r"model\.10\.m\.0\.attn\.qkv\.")),
    _Family("YOLOv8", (r"model\.\d+\.dfl\.",)),
    _Family("YOLO11, a classifier", (r"model\.\d+\.linear\.weight", r"model\.\d+\.m\.0\.attn\.qkv\.")),
    _Family("YOLOv8, a classifier", (r"model\.9\.linear\.weight", r"model\.2\.m\.0\.cv1\.", r"model\.2\.cv2\.")),
    _Family("YOLOv7", (r"model\.\d+\.(ia|im)\.\d+\.implicit",)),
    _Family("YOLOv7", (r"model\.\d+\.rbr_(dense|1x1|reparam)\.",)),
    _Family("YOLOv7", (r"model\.(77|105)\.m\.0\.weight",)),
    _Family("YOLOR", (r".*\bimplicit\b",)),
    _Family("YOLOv6", (r"backbone\.ERBlock_2\.",)),
    _Family("YOLOX", (r"backbone\.backbone\.(stem|dark2)\.", r"head\.(cls_preds|obj_preds|reg_preds)\.")),
    _Family("YOLOX", (r"bbox_head\.multi_level_(cls|reg|conv_cls|conv_reg)",)),
    _Family("a detector of MMYOLO", (r"bbox_head\.head_module\.",)),
    _Family("Mask R-CNN", (r"roi_heads?\.(mask_predictor|mask_head)\.",)),
    _Family("Keypoint R-CNN", (r"roi_heads\.keypoint_predictor\.",)),
    _Family("Faster R-CNN", (r"(roi_heads?\.(box_predictor|bbox_head|box_head)|rpn_head|rpn\.head)\.",)),
    _Family("FCOS", (r"head\.regression_head\.bbox_ctrness\.",)),
    _Family("SSD", (r"head\.(classification|regression)_head\.module_list\.",)),
    _Family("RetinaNet", (r"head\.classification_head\.(conv|cls_logits)",)),
    _Family("EfficientDet", (r".*\bbifpn\b",)),
    _Family("DETR", (r".*\bquery_(embed|position_embeddings)\b",)),
    _Family("a detector of MMDetection", (r"bbox_head\.",)),
    _Family("SAM", (r"(sam_)?(image_encoder|mask_decoder)\.",)),
    _Family("YOLOv4 from the program pytorch-YOLOv4", (r"down1\.conv1\.conv\.0\.", r"neek\.|neck\.conv1\.")),
    _Family("a vision transformer", (r".*\b(cls_token|pos_embed|position_embeddings)\b",)),
    _Family("MobileNet, a classifier", (r"features\.0\.0\.weight", r"classifier\.\d+\.weight")),
    _Family("VGG, a classifier", (r"features\.0\.weight", r"classifier\.\d+\.weight")),
    _Family("ResNet, a classifier", (r"layer1\.0\.conv1\.weight", r"fc\.weight")),
    _Family("ResNet", (r"layer1\.0\.conv1\.weight",)),
)
_TASKS = (
    ("for segmentation", r"model\.\d+\.proto\."),
    ("for oriented boxes or poses", r"model\.\d+\.cv4\.\d+\.\d+\."),
)
_YOLOV5_SIZES = {(16, 1): "n", (32, 1): "s", (48, 2): "m", (64, 3): "l", (80, 4): "x"}
"""Size of a model by the outputs of its first convolution and the bottlenecks of its first stage."""
_SCALEDYOLOV4_HEADS = {31: "yolov4-p5", 42: "yolov4-p6", 53: "yolov4-p7"}


def other_weights(shapes: Shapes, model: str, named: str | None, has_backbone: bool) -> str | None:
    """Return which network is in a file instead of a model, and the remedy; None if the arrays do not identify it.

    Args:
        shapes: Shapes of the arrays of the file by their names there.
        model: Name of the requested model.
        named: Name of the model that the file states.
        has_backbone: Whether the backbone of the model is in the file.
    """
    own = named if named in model_names() else model_here(shapes)
    if own is not None and own != model:
        return f"holds the weights of {own}, not of {model}; give --model {own}"
    other = other_network(shapes)
    if other is not None:
        take = "import its backbone with --backbone or " if has_backbone else ""
        return f"holds {other}, which is not a supported model (kubeyolo models list); {take}give weights of {model}"
    if is_fused(shapes):
        return (
            "holds convolutions with fused batch normalization, which cannot be trained; give the checkpoint "
            "that the training saved"
        )
    return None


def other_network(shapes: Shapes) -> str | None:
    """Return the name of a network that is not supported, or None if the arrays do not identify it.

    Args:
        shapes: Shapes of the arrays of a file by their names there.
    """
    names = [_bare(name) for name in shapes]

    def has(pattern: str) -> bool:
        match = re.compile(pattern).match
        return any(match(name) for name in names)

    for family in _FAMILIES:
        if all(has(pattern) for pattern in family.patterns):
            task = next((task for task, pattern in _TASKS if has(pattern)), None) if "YOLO" in family.name else None
            return f"{family.name} {task}" if task else family.name
    return _other_yolov5(names, has)


def model_here(shapes: Shapes) -> str | None:
    """Return our name of a detector from the YOLOv5 or the Scaled-YOLOv4 program, or None for any other network."""
    bare = {_bare(name): shape for name, shape in shapes.items()}
    heads = {int(match[1]) for name in bare if (match := _HEAD_LAYER.fullmatch(name))}
    if len(heads) == 1 and "model.2.cv4.conv.weight" in bare:
        return _SCALEDYOLOV4_HEADS.get(heads.pop())
    if heads != {24} or any(name.startswith("model.24.proto.") for name in bare):
        return None
    release7, release5 = bare.get("model.0.conv.weight"), bare.get("model.0.conv.conv.weight")
    stem = release7 or release5
    depth = len({name.split(".")[3] for name in bare if re.match(r"model\.2\.m\.\d+\.", name)})
    if stem is None or len(stem) != 4 or (release7 is not None and stem[2] != 6):
        return None
    size = _YOLOV5_SIZES.get((stem[0], depth))
    return None if size is None else f"yolov5{size}{'-r7' if release7 is not None else ''}"


def is_fused(names: Iterable[str]) -> bool:
    """Tell whether batch normalization is fused into the convolutions, as programs save them for inference."""
    known = list(names)
    biases = any(re.search(r"\bconv\d?\.bias$", name) for name in known)
    return biases and not any(re.search(r"\b(bn\d?|norm\d?)\.|BatchNorm|running_(mean|var)", name) for name in known)


def _other_yolov5(names: list[str], has: Callable[[str], bool]) -> str | None:
    """Return the name of a network of the YOLOv5 program that is not supported, or None."""
    if not has(r"model\.0\.(conv\.)?conv\.weight") or not has(r"model\.2\.(cv1|m\.0|0)\."):
        return _by_head(names)
    if has(r"model\.\d+\.proto\."):
        return "YOLOv5 for segmentation (yolov5-seg)"
    if has(r"model\.\d+\.linear\.weight"):
        return "YOLOv5, a classifier (yolov5-cls)"
    if has(r"model\.2\.cv4\.conv\.weight") and has(r"model\.2\.bn\.weight"):
        return "YOLOv5 from a release before 4 (BottleneckCSP)"
    return _by_head(names)


def _by_head(names: list[str]) -> str | None:
    """Return the name of a network from the number of the layer that predicts, and its levels."""
    outputs = [match.groups() for name in names if (match := _HEAD_LAYER.fullmatch(name))]
    heads, levels = {int(layer) for layer, _ in outputs}, {level for _, level in outputs}
    if heads == {33}:
        return "YOLOv5 with four levels for large images (P6, such as yolov5n6)"
    if heads == {28}:
        return "YOLOv3 from the YOLOv5 program, whose layers differ from darknet's"
    if heads == {20}:
        return "YOLOv3-tiny from the YOLOv5 program"
    if heads == {24} and len(levels) not in (0, 3):
        return f"YOLOv5 with {len(levels)} levels"
    return None


def _bare(name: str) -> str:
    """Return a name without the prefixes of wrappers; a whole module was saved if it starts with ``model.model.``."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.removeprefix("model.") if name.startswith("model.model.") else name

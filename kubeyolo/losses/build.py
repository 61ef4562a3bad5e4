"""The loss of a registered model, with its published settings."""

from __future__ import annotations

from kubeyolo.errors import InputError
from kubeyolo.losses.yolov5 import YoloV5Loss, scaledyolov4_gains, yolov5_gains
from kubeyolo.models.facts import ModelFacts


def build_loss(
    facts: ModelFacts,
    num_classes: int,
    image_size: int,
    box_gain: float = 0.05,
    obj_gain: float = 1.0,
    cls_gain: float = 0.5,
    anchor_t: float = 4.0,
    label_smooth_factor: float = 0.0,
) -> YoloV5Loss:
    """Build the loss that a model is trained with.

    Args:
        facts: Facts of the model, with the anchors it is trained with.
        num_classes: Number of classes.
        image_size: Side of the training images in pixels; the gain of YOLOv5's objectness grows with its square.
        box_gain: Gain of the box loss before it is scaled to the model.
        obj_gain: Gain of the objectness loss before it is scaled to the model.
        cls_gain: Gain of the class loss before it is scaled to the model.
        anchor_t: Largest ratio of a label's and an anchor's sides, exclusive.
        label_smooth_factor: With factor f the class targets are 1 − f/2 and f/2.

    Returns:
        A cell from (raws, labels) to (total, parts); see :class:`kubeyolo.losses.yolov5.YoloV5Loss`.

    Raises:
        InputError: The model's family of losses is not built.
    """
    levels = len(facts.strides)
    if facts.loss == "yolov5":
        gains, eps = yolov5_gains(levels, num_classes, image_size, box_gain, obj_gain, cls_gain), 1e-7
    elif facts.loss == "scaledyolov4":
        gains, eps = scaledyolov4_gains(levels, num_classes, box_gain, obj_gain, cls_gain), 1e-16
    else:
        raise InputError(f"model {facts.name!r}: loss {facts.loss!r} is not built; known: scaledyolov4, yolov5")
    return YoloV5Loss(facts.anchors, facts.strides, num_classes, gains, anchor_t, label_smooth_factor, eps)

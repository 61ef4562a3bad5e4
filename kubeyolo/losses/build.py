"""The loss of a registered model, with its published settings."""

from __future__ import annotations

from dataclasses import replace

from mindspore import nn

from kubeyolo.errors import InputError
from kubeyolo.losses.darknet import YOLOV4_THRESHOLD, DarknetLoss
from kubeyolo.losses.darknet_assign import NO_THRESHOLD
from kubeyolo.losses.yolov5 import YoloV5Loss, scaledyolov4_gains, yolov5_gains
from kubeyolo.models.facts import ModelFacts

# Gains of box, objectness and class loss.
_GAINS = {
    "yolov5": (0.05, 1.0, 0.5),
    "scaledyolov4": (0.05, 1.0, 0.5),
    "yolov3": (1.0, 1.0, 1.0),
    "yolov4": (10.0, 1.0, 1.0),
}


def build_loss(
    facts: ModelFacts,
    num_classes: int,
    image_size: int,
    box_gain: float | None = None,
    obj_gain: float | None = None,
    cls_gain: float | None = None,
    anchor_t: float = 4.0,
    label_smooth_factor: float = 0.0,
    loss_scale: float = 0.0,
    processes: int = 1,
    synchronized: bool = False,
) -> nn.Cell:
    """Build the loss that a model is trained with.

    Args:
        facts: Facts of the model, with the anchors it is trained with.
        num_classes: Number of classes.
        image_size: Side of the training images in pixels; the gain of YOLOv5's objectness grows with its square.
        box_gain: Gain of the box loss before it is scaled to the model; if None, the published gain is used.
        obj_gain: Gain of the objectness loss before it is scaled to the model; if None, the published gain is used.
        cls_gain: Gain of the class loss before it is scaled to the model; if None, the published gain is used.
        anchor_t: Largest ratio of a label's and an anchor's sides, exclusive; not used by the darknet family.
        label_smooth_factor: With factor f the class targets are 1 − f/2 and f/2, in the darknet family 1 − f and
            f / (classes − 1).
        loss_scale: Divisor of the loss; if 0, the published divisor is used.
        processes: Number of training processes, whose gradients are summed.
        synchronized: Whether means over positive anchors are those over the anchors of all processes; the losses of the
            darknet family have no such means.

    Returns:
        A cell that maps (raws, labels) to (total, parts); see :class:`kubeyolo.losses.yolov5.YoloV5Loss` and
        :class:`kubeyolo.losses.darknet.DarknetLoss`.

    Raises:
        InputError: There is no such loss, or the image size is not a multiple of the largest stride.
    """
    largest = facts.strides[-1]
    if image_size % largest:
        raise InputError(
            f"model {facts.name!r}: the image size {image_size} is not a multiple of its largest stride, {largest}"
        )
    if facts.loss not in _GAINS:
        raise InputError(f"model {facts.name!r}: there is no loss {facts.loss!r}; known: {', '.join(_GAINS)}")
    given = (box_gain, obj_gain, cls_gain)
    box, obj, cls = (
        published if gain is None else gain for gain, published in zip(given, _GAINS[facts.loss], strict=True)
    )
    divisor = loss_scale or facts.loss_divisor
    if facts.loss in ("yolov3", "yolov4"):
        return DarknetLoss(
            facts.anchors,
            facts.strides,
            num_classes,
            facts.scale_xy,
            "squares" if facts.loss == "yolov3" else "ciou",
            (box, obj, cls),
            NO_THRESHOLD if facts.loss == "yolov3" else YOLOV4_THRESHOLD,
            label_smooth_factor=label_smooth_factor,
            divisor=divisor,
            processes=processes,
        )
    levels = len(facts.strides)
    if facts.loss == "yolov5":
        gains, eps = yolov5_gains(levels, num_classes, image_size, box, obj, cls), 1e-7
    else:
        gains, eps = scaledyolov4_gains(levels, num_classes, box, obj, cls), 1e-16
    gains = replace(gains, box=gains.box / divisor, obj=gains.obj / divisor, cls=gains.cls / divisor)
    counted = processes if synchronized else 1
    return YoloV5Loss(facts.anchors, facts.strides, num_classes, gains, anchor_t, label_smooth_factor, eps, counted)

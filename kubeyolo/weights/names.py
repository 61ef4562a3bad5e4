"""Names of parameters in other programs, and the names they have here."""

from __future__ import annotations

from kubeyolo.models.facts import ModelFacts

_YOLOV5_LAYERS = {
    0: "backbone.stem",
    1: "backbone.down2",
    2: "backbone.stage2",
    3: "backbone.down3",
    4: "backbone.stage3",
    5: "backbone.down4",
    6: "backbone.stage4",
    7: "backbone.down5",
    8: "backbone.stage5",
    9: "backbone.pool",
    10: "neck.reduce5",
    13: "neck.top4",
    14: "neck.reduce4",
    17: "neck.top3",
    18: "neck.down3",
    20: "neck.bottom4",
    21: "neck.down4",
    23: "neck.bottom5",
    24: "head",
}
_BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_NOT_WEIGHTS = ("num_batches_tracked", "anchors", "anchor_grid")


def yolov5_layers(facts: ModelFacts) -> dict[int, str]:
    """Return the place of each numbered layer of the YOLOv5 program in our network."""
    layers = dict(_YOLOV5_LAYERS)
    if facts.shape["focus"]:
        layers[8], layers[9] = layers[9], layers[8]
    return layers


def from_yolov5(name: str, facts: ModelFacts) -> str | None:
    """Translate ``model.2.cv1.bn.weight`` to ``backbone.stage2.cv1.bn.gamma``.

    Returns:
        Our name; the name itself where it is not of this layout; None for buffers that are no weights.
    """
    words = name.split(".")
    if words[-1] in _NOT_WEIGHTS:
        return None
    layers = yolov5_layers(facts)
    if len(words) < 3 or words[0] != "model" or not words[1].isdigit() or int(words[1]) not in layers:
        return name
    if words[-2] == "bn":
        words[-1] = _BATCH_NORM.get(words[-1], words[-1])
    return ".".join([layers[int(words[1])], *words[2:]])

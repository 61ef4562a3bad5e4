"""The table of all configuration keys in docs/configuration.md: ``python -m kubeyolo.config.reference``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kubeyolo.config.schema import Config

BEGIN = "<!-- made by: python -m kubeyolo.config.reference -->"
END = "<!-- end of what is made -->"

_TYPES = {"integer": "int", "number": "float", "boolean": "bool", "string": "text"}
_BOUNDS = (("exclusiveMinimum", "> "), ("minimum", "≥ "), ("exclusiveMaximum", "< "), ("maximum", "≤ "))

# Of keys whose name says it to those who train; the schema describes the others.
_MEANINGS = {
    "model": "Name of the detector.",
    "pretrain.enabled": "Whether the backbone is pretrained.",
    "pretrain.per_batch_size": "Crops of a step.",
    "pretrain.max_epoch": "Upper bound of the epochs.",
    "pretrain.weight_decay": "Decoupled weight decay of AdamW.",
    "train.seed": "Seed of fresh weights, order, augmentation and calibration images.",
    "train.max_epoch": "Epochs.",
    "train.optimizer": "Optimizer.",
    "train.lr_scheduler": "How the learning rate falls after the warm-up.",
    "train.lr_gamma": "Factor of exponential at each of lr_epochs.",
    "train.warmup_epochs": "Length of the warm-up; 0 for none.",
    "train.warmup_momentum": "Momentum at the start of the warm-up (SGD).",
    "train.nesterov": "Nesterov momentum (SGD).",
    "train.weight_decay": "Decay of weights of convolutions; biases and batch normalisation do not decay.",
    "train.ema_decay": "Decay of the average of the weights, reached in the limit.",
    "train.label_smooth_factor": "With factor f the class targets are 1 - f/2 and f/2.",
    "train.box_gain": "Weight of the box loss.",
    "train.cls_gain": "Weight of the class loss.",
    "train.obj_gain": "Weight of the objectness loss.",
    "train.keep_checkpoints": "Newest checkpoints that are kept.",
    "train.device_target": "Device that MindSpore works on.",
    "evaluate.split": "Split of the data set.",
    "evaluate.per_batch_size": "Images of a forward pass.",
    "evaluate.conf_threshold": "Objectness and score of a candidate must exceed this.",
    "evaluate.iou_threshold": "Overlap above which the lower of two boxes of a class is dropped.",
    "evaluate.max_det": "Most boxes of an image.",
    "evaluate.multi_label": "Whether one box may be a candidate for several classes.",
    "export.formats": "Formats that are written; a run needs onnx.",
    "export.batch_size": "Images the MINDIR and AIR files take; ONNX takes any number.",
    "export.parity_rtol": "Largest difference relative to the largest value of a level.",
    "quantize.calibration_images": "Images of the split train that the ranges are taken from.",
    "quantize.calibration": "How the ranges of activations are chosen.",
    "quantize.min_quantized_convs": "The step fails when a smaller share of the convolutions is int8.",
    "quantize.max_size_ratio": "The step fails when the int8 file is larger than this share of the float file.",
}


def reference_table() -> str:
    """Return a Markdown table of every key: type and range, default, meaning."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, schema, default in _keys():
        meaning = schema.get("description") or _MEANINGS[key]
        lines.append(f"| `{key}` | {_type(schema)} | `{json.dumps(default)}` | {meaning} |")
    return "\n".join(lines) + "\n"


def _keys() -> Iterator[tuple[str, Mapping[str, Any], Any]]:
    """Yield each dotted key with its JSON schema and its default."""
    document = Config.model_json_schema()
    for name, default in Config().model_dump(mode="json").items():
        if not isinstance(default, dict):
            yield name, document["properties"][name], default
            continue
        section = document["$defs"][type(getattr(Config(), name)).__name__]["properties"]
        for key, value in default.items():
            yield f"{name}.{key}", section[key], value


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(str(value) for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    bounds = [f"{sign}{schema[bound]}" for bound, sign in _BOUNDS if bound in schema]
    if "multipleOf" in schema:
        bounds.append(f"multiple of {schema['multipleOf']}")
    return " ".join([_TYPES[schema["type"]], ", ".join(bounds)]).strip()


if __name__ == "__main__":
    print(reference_table(), end="")

"""The model card: what a published bundle is, how good it is, and how to use it, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kubeyolo.bundle import AIR, LEFT_OUT, ONNX_NMS
from kubeyolo.evaluation.intervals import LEVEL_TEXT, Interval
from kubeyolo.evaluation.limits import number_warnings
from kubeyolo.evaluation.results import COCO_NUMBERS
from kubeyolo.formats import DASH, size_or_dash, size_text
from kubeyolo.report.formats import number3, setting
from kubeyolo.report.origin import origin_facts, start_facts
from kubeyolo.report.page import fact_rows, render
from kubeyolo.training.result import Choice

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")

MOST_CLASSES = 100
"""With more classes, the card has only the best threshold for all of them; ``bundle.json`` has all thresholds."""

MAIN_SETTINGS = ("image_size", "per_batch_size", "max_epoch", "optimizer", "lr", "lr_scheduler", "seed")


def model_card(
    manifest: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float | None]],
    best_thresholds: Mapping[str, Mapping[str, Any]] | None = None,
    intervals: Mapping[str, Interval] | None = None,
) -> str:
    """Return the model card of a bundle as Markdown.

    Args:
        manifest: ``bundle.json`` as a mapping.
        metrics: The 12 COCO metrics (0..1) of each runtime, for instance ``{"mindspore": …, "onnx": …, "int8": …}``.
        best_thresholds: The best thresholds by runtime, as the bundle keeps them.
        intervals: Interval of AP of each runtime for which it is known.
    """
    name = str(manifest.get("model", "detector"))
    dataset = manifest.get("dataset") or {}
    classes = list(manifest.get("classes", ()))
    height, width = manifest.get("image_size", (0, 0))
    left_out = (manifest.get("metrics") or {}).get(LEFT_OUT) or {}
    trained_on = f", trained on {escape(dataset.get('name', 'a data set'))}" if dataset else ""
    parts = [
        f"# {escape(name)}",
        f"An object detector for {len(classes)} class{'es' * (len(classes) != 1)}{trained_on}. "
        f"Trained, evaluated{' and exported' if left_out else ', exported and quantized'} by kubeyolo.",
        "## Metrics",
        _number_table(metrics, intervals or {}) if metrics else "This bundle has no evaluation results.",
        _threshold_table(best_thresholds or {}, classes),
        _speed_table((manifest.get("metrics") or {}).get("benchmark") or {}),
        "## Data",
        _data(dataset),
        "## Classes",
        ", ".join(escape(label) for label in classes) + ".",
        "## Input and output",
        _interface(manifest, height, width),
        "## Training",
        _training_warnings(manifest),
        _training(manifest, dataset),
        _provenance(manifest),
        "## Files",
        _file_table(manifest.get("files", {})),
        _unmeasured(manifest.get("files", {})),
        _left_out(left_out),
        "## Limits",
        "The metrics are valid for images that resemble the data set: evaluate again for other cameras, scales or "
        "scenes. "
        "Objects of other classes are not reported, or are reported as one of these classes. Scores are not calibrated "
        "probabilities; choose the threshold on your own data.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def publish_report(model: str, version: str, card: str, facts: Mapping[str, object]) -> str:
    """Return the report of publish as one HTML page: the URI of the bundle, and its model card."""
    return render(
        "publish.html",
        kind="published",
        title=f"{model} {version}",
        lead="A published detector: checked, evaluated, exported and quantized.",
        card=card,
        facts=fact_rows(facts),
    )


def _number_table(metrics: Mapping[str, Mapping[str, float | None]], intervals: Mapping[str, Interval]) -> str:
    rows = []
    for number in COCO_NUMBERS:
        rows.append([number.key, f"{number.iou}, {number.area}, {number.max_det}"])
        rows[-1] += [number3(numbers.get(number.key)) for numbers in metrics.values()]
        if number.key == "AP" and intervals:
            rows.append(["AP", f"{LEVEL_TEXT} interval over the images"])
            known = [intervals.get(name) for name in metrics]
            rows[-1] += [f"{number3(each.low)} to {number3(each.high)}" if each else DASH for each in known]
    table = markdown_table(["Metric", "IoU, area, detections", *metrics], rows, right=len(metrics))
    warnings = [f"**{escape(name)}: {escape(line)}**" for name, of in metrics.items() for line in number_warnings(of)]
    lead = "COCO metrics on the validation split."
    return "\n\n".join([lead, *warnings, table])


def _threshold_table(best: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Return the best threshold of each class, with many classes only the overall threshold; empty if unknown."""
    if not best:
        return ""
    rows = [["all classes", *(f"{each['overall']:.3f}" for each in best.values())]]
    if len(classes) <= MOST_CLASSES:
        rows += [
            [name, *(f"{each['classes'].get(name, each['overall']):.3f}" for each in best.values())] for name in classes
        ]
    lead = (
        "Confidence thresholds with the largest F1 at IoU .50 on the validation split; "
        "`kubeyolo predict --conf best` uses those of the classes."
    )
    return "\n\n".join([lead, markdown_table(["Best threshold", *best], rows, right=len(best))])


def _speed_table(benchmark: Mapping[str, Any]) -> str:
    """Return the speeds that ``kubeyolo benchmark`` has measured; empty if there are none."""
    if not benchmark.get("speeds"):
        return ""
    rows = [
        [
            escape(each["runtime"]),
            str(each["batch"]),
            str(each["threads"]),
            f"{each['latency_ms']['p50']:.2f}",
            f"{each['latency_ms']['p99']:.2f}",
            f"{each['images_per_second']:.1f}",
            size_or_dash(each["memory"]),
        ]
        for each in benchmark["speeds"]
    ]
    lead = (
        f"Measured on {escape(benchmark['machine'])}, for the network with its decoding: without letterbox and "
        "non-maximum suppression."
    )
    head = ["Runtime", "Batch", "Threads", "p50 ms", "p99 ms", "Images/s", "Memory"]
    return "\n\n".join(["## Speed", lead, markdown_table(head, rows, right=6)])


def _data(dataset: Mapping[str, Any]) -> str:
    """List the findings of the validation of the data set."""
    if not dataset:
        return "The data set is unknown."
    name = escape(dataset.get("name", "the data set"))
    lines = "\n".join(f"- {escape(line)}" for line in dataset.get("findings") or ())
    return f"Findings in {name}:\n\n{lines}" if lines else f"Validation reported no findings in {name}."


def _interface(manifest: Mapping[str, Any], height: int, width: int) -> str:
    steps = manifest.get("preprocessing") or {}
    strides = ", ".join(str(stride) for stride in manifest.get("strides", ()))
    return (
        f"Images are resized by {escape(steps.get('resize', 'letterbox'))} to {width} × {height} pixels "
        f"(fill {steps.get('fill', 114)}), {escape(steps.get('channels', 'RGB'))}, divided by "
        f"{setting(steps.get('divisor', 255.0))}, laid out N × 3 × {height} × {width}, float32. "
        f"The outputs are the raw levels of strides {strides}; the ONNX files also output decoded `predictions`. "
        f"{_suppression(manifest)}{_anchors(manifest)}Anchors, strides and preprocessing are in `bundle.json`.\n\n"
        "```sh\nkubeyolo predict --bundle URI IMAGE\n```"
    )


def _suppression(manifest: Mapping[str, Any]) -> str:
    """Return a sentence about the file with suppression inside; empty if there is none."""
    if ONNX_NMS not in manifest.get("files", {}):
        return ""
    return f"`{ONNX_NMS}` outputs `detections` and `counts` instead, after non-maximum suppression. "


def _training_warnings(manifest: Mapping[str, Any]) -> str:
    """Return the warnings of the training; empty if there were none, or the bundle has no record of them."""
    lines = ((manifest.get("metrics") or {}).get("train") or {}).get("warnings") or ()
    return "\n\n".join(f"**Warning: {escape(line)}**" for line in lines)


def _anchors(manifest: Mapping[str, Any]) -> str:
    """Return a sentence with the anchors that the outputs are decoded with."""
    levels = zip(manifest.get("strides", ()), manifest.get("anchors", ()), strict=False)
    texts = [f"{stride}: {', '.join(f'{width:g} × {height:g}' for width, height in level)}" for stride, level in levels]
    return f"Anchors, width × height in pixels by stride: {'; '.join(texts)}. " if texts else ""


def _training(manifest: Mapping[str, Any], dataset: Mapping[str, Any]) -> str:
    config = manifest.get("config") or {}
    train = config.get("train", {})
    rows = [[key, setting(train[key])] for key in MAIN_SETTINGS if key in train]
    rows += _weights((manifest.get("metrics") or {}).get("train") or {})
    rows += [["extended", str(line)] for line in (manifest.get("metrics") or {}).get("extended", ())]
    rows += _backbone_rows(manifest)
    if dataset:
        rows += [["data set", str(dataset.get("name", ""))], ["data set digest", str(dataset.get("digest", ""))]]
    # A bundle that was imported has a record of its file, but not of a start.
    start = config.get("started_from") or {}
    facts = start_facts(start) if start else origin_facts(config if "imported" in config else {})
    rows += [[name, value] for name, value in facts.items()]
    if manifest.get("parent"):
        rows.append(["derived from", str(manifest["parent"])])
    if manifest.get("code_digest"):
        rows.append(["code digest", str(manifest["code_digest"])])
    rows += [[f"package {name}", str(version)] for name, version in (manifest.get("packages") or {}).items()]
    return markdown_table(["Setting", "Value"], rows)


def _provenance(manifest: Mapping[str, Any]) -> str:
    """Return a table of the steps that made the bundle; empty if it has no record of them."""
    entries = manifest.get("provenance") or ()
    if not entries:
        return ""
    names = ("step", "time", "version", "code", "run", "user", "image")
    rows = [
        [str(each.get(name) or DASH) for name in names]
        + [", ".join(f"{name} {digest}" for name, digest in each.get("inputs", {}).items()) or DASH]
        for each in entries
    ]
    head = ["Step", "Time", "Version", "Code", "Run", "User", "Image", "Inputs by digest"]
    return "\n\n".join(["## Provenance", markdown_table(head, rows)])


def _backbone_rows(manifest: Mapping[str, Any]) -> list[list[str]]:
    """Return the accuracy of the pretrained backbone; empty if there is none."""
    numbers = (manifest.get("metrics") or {}).get("pretrain") or {}
    names = {"accuracy": "top-1 of the pretrained backbone", "top5": "top-5 of the pretrained backbone"}
    return [[title, number3(numbers[key])] for key, title in names.items() if key in numbers]


def _weights(train: Mapping[str, Any]) -> list[list[str]]:
    """Return rows with the validation whose weights are published, and why the training stopped early."""
    rows = []
    if choice := train.get("choice"):
        rows.append(["published weights", Choice.model_validate(choice).words])
        rows += [["weights after the last epoch", choice["last"]]] if choice.get("last") else []
    if stopped := train.get("stopped"):
        rows.append(["stopped early", str(stopped)])
    return rows


def _file_table(files: Mapping[str, Any]) -> str:
    rows = [[name, size_text(file.get("size", 0)), str(file.get("sha256", ""))] for name, file in files.items()]
    return markdown_table(["File", "Size", "sha256"], rows)


def _unmeasured(files: Mapping[str, Any]) -> str:
    """Return a sentence about a file that no step has run; empty if there is none."""
    if AIR not in files:
        return ""
    return (
        f"The parity of `{AIR}` with the trained network was not measured: only Ascend's own tools run it. The format "
        "is deprecated in MindSpore."
    )


def _left_out(reasons: Mapping[str, str]) -> str:
    """Return a sentence about each network that the bundle lacks because it missed a limit; empty if there are none."""
    return "\n\n".join(f"**The {escape(name)} network is left out: {escape(why)}**" for name, why in reasons.items())


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> str:
    """Return a Markdown table, its cells escaped; the last ``right`` columns are numbers."""
    first, *rest = [f"| {' | '.join(map(escape, line))} |" for line in [head, *rows]]
    rule = ["---"] * (len(head) - right) + ["---:"] * right
    return "\n".join([first, f"| {' | '.join(rule)} |", *rest])


def escape(value: object) -> str:
    """Return text on one line, with the special characters of Markdown and HTML escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))

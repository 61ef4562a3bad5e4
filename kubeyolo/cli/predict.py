"""``kubeyolo predict``: objects in images."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from kubeyolo.arrays import Float64Array
from kubeyolo.bundle import ONNX, Bundle, open_bundle
from kubeyolo.cli.options import DEFAULT_RUNS, ConfigOption, RunsOption, SetOption, flag_pairs, sets_of
from kubeyolo.cli.predictions import summarise, write_results
from kubeyolo.cli.streams import only_result
from kubeyolo.config.load import load_config
from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError
from kubeyolo.evaluation.operating_points import kept_thresholds
from kubeyolo.evaluation.predictor import Thresholds, load_predictor
from kubeyolo.evaluation.results import RuntimeName, check_runtime
from kubeyolo.prediction.drawing import Painter
from kubeyolo.prediction.fonts import Fonts
from kubeyolo.prediction.lists import expand_lists, read_list
from kubeyolo.prediction.result_files import CLASSES, ResultFile, coco_results, yolo_labels
from kubeyolo.prediction.sources import Sources, find_sources
from kubeyolo.prediction.stream import predict_images
from kubeyolo.prediction.targets import plan_targets
from kubeyolo.prediction.windows import Slicing
from kubeyolo.regular_files import DOCUMENT_SIZE, read_regular
from kubeyolo.storage.file_errors import removed_if_empty
from kubeyolo.storage.place import Place

_BEST = "best"
_NONE_GIVEN = "no images are given; name files, folders or patterns, or a list of them (--list FILE)"


def predict(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders, quoted patterns such as 'photos/**/*.jpg', @FILE with a name on each line, - "
            "for names on standard input, or URIs of a store.",
            show_default=False,
        ),
    ] = None,
    lists: Annotated[
        list[str] | None,
        typer.Option("--list", "-l", metavar="FILE", help="File with the name of an image on each line."),
    ] = None,
    bundle: Annotated[
        str,
        typer.Option("--bundle", "-b", metavar="URI", help="Bundle; by default from the newest run in --runs."),
    ] = "",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="Runtime: mindspore, onnx, int8, mindir, openvino or openvino-int8; by default onnx if the bundle has "
            "it, and mindspore with --tta.",
        ),
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for images with drawn boxes.")
    ] = None,
    font: Annotated[
        Path | None,
        typer.Option(
            "--font", metavar="FILE", help="Font file for class names; other fonts are used for letters that it lacks."
        ),
    ] = None,
    conf: Annotated[
        str | None,
        typer.Option(
            "--conf",
            metavar="SCORE|best",
            help="Lowest score of a box, 0 to 1; overrides predict.conf_threshold. best: for each class the score with "
            "the largest F1 in the evaluation of this bundle.",
        ),
    ] = None,
    tta: Annotated[
        bool, typer.Option("--tta", help="Test-time augmentation: the network sees each image in three sizes.")
    ] = False,
    side: Annotated[
        int | None,
        typer.Option(
            "--slice",
            metavar="PIXELS",
            help="Also run the network on overlapping windows of this side in larger images, for small objects; "
            "predict.slice_overlap sets the overlap.",
        ),
    ] = None,
    coco: Annotated[
        Path | None, typer.Option("--coco", metavar="FILE", help="COCO results file to write, for all images.")
    ] = None,
    txt: Annotated[
        Path | None,
        typer.Option("--txt", metavar="FOLDER", help="Folder for YOLO labels: a text file for each image."),
    ] = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON lines: one for each image, as soon as it is done.")
    ] = False,
) -> None:
    """Find objects in images with a bundle; print a table or JSON lines, and draw boxes.

    Boxes are x1, y1, x2, y2 in pixels of the image as a viewer shows it. A folder stands for all images in it and
    below it. Images that cannot be read are skipped and listed at the end, and the exit code is 1.

    [bold]Examples[/bold]

      kubeyolo predict photo.jpg

      kubeyolo predict data/photos --bundle store/models/yolov5n-r7/1.0 --runtime int8 -o drawn --json

      kubeyolo predict data/photos --conf best

      kubeyolo predict aerial.tif --slice 640 --coco results.json --txt labels

      find data -name '*.jpg' | kubeyolo predict - --conf 0.5 --set predict.iou_threshold=0.6
    """
    if not images and not lists:
        raise InputError(_NONE_GIVEN)
    if font and not output:
        raise InputError(f"--font {font}: is used for drawn pictures only; give --output FOLDER too")
    pairs = [*sets_of(sets), *flag_pairs("predict.tta", tta or None)]
    pairs += [] if side is None else [f"predict.slice={side}"]
    config = load_config(None, config_file, pairs).predict
    score = _score(conf)
    opened = open_bundle(Place.of(bundle or _newest_bundle(runs)))
    name = _runtime(opened, runtime, config.tta)
    by_class = best_scores(opened, name) if conf == _BEST else None
    sources = _sources(images or [], lists or [], output)
    classes = opened.manifest.classes
    painter = Painter(classes, Fonts(font)) if output else None
    thresholds = Thresholds(config.conf_threshold if score is None else score, config.iou_threshold, config.max_det)
    slicing = Slicing(config.slice, config.slice_overlap) if config.slice else None
    with ExitStack() as stack:
        for folder in filter(None, (output, txt, coco and coco.parent)):
            stack.enter_context(removed_if_empty(folder))
        targets = plan_targets(sources.images, output) if output else []
        labels = yolo_labels(txt, sources.images, classes) if txt else None
        with only_result(as_json):
            predictor = load_predictor(opened, name, batch_size=1, tta=config.tta)
        outcomes = predict_images(predictor, sources.images, thresholds, painter, targets, by_class, slicing)
        files: list[ResultFile] = []
        if coco:
            taken = [*targets, *([*labels.paths.values(), txt / CLASSES] if labels and txt else [])]
            files.append(stack.enter_context(coco_results(coco, sources.images, opened.manifest.category_ids, taken)))
        if labels:
            # Last: nothing is written before everything is checked.
            labels.begin()
            files.append(labels)
        summary = write_results(outcomes, sources, classes, as_json, files)
    summarise(summary, sources, classes, painter, output)


def _sources(images: list[str], lists: list[str], output: Path | None) -> Sources:
    """Return the images to read.

    Raises:
        InputError: There is no argument, or the only argument cannot be used.
    """
    if "-" in images and sys.stdin.isatty():
        print(
            "reading names of images from the terminal; press Ctrl-D on an empty line to end the list", file=sys.stderr
        )
    names = [*expand_lists(images, sys.stdin.buffer), *(name for file in lists for name in read_list(file))]
    if not names:
        raise InputError(_NONE_GIVEN)
    found = find_sources(names, output)
    fault = found.only_fault()
    if fault:
        raise InputError(fault)
    return found


def _newest_bundle(runs: Path) -> str:
    summary = runs / "latest" / "summary.json"
    try:
        return str(read_json(read_regular(summary, DOCUMENT_SIZE), str(summary))["bundle"])
    except (OSError, NotJson, KeyError, TypeError) as error:
        raise InputError(f"{summary}: no finished run in this folder; give --bundle") from error


def _score(conf: str | None) -> float | None:
    """Return the lowest score of a box that an option gives; None if it gives no number.

    Raises:
        InputError: The option is neither a number from 0 to 1 nor best.
    """
    if conf in (None, _BEST):
        return None
    with suppress(ValueError):
        if 0 <= float(str(conf)) <= 1:
            return float(str(conf))
    raise InputError(f"--conf {conf}: expected a score from 0 to 1, such as --conf 0.25, or --conf {_BEST}")


def best_scores(bundle: Bundle, runtime: RuntimeName) -> Float64Array:
    """Return the score (classes,) with the largest F1 of each class.

    Raises:
        InputError: The bundle has no best thresholds for a network that is the same as that of the runtime, or they are
            not scores.
    """
    manifest = bundle.manifest
    # The exported float networks are the trained network; int8 scores differ.
    for name in ("int8",) if runtime in ("int8", "openvino-int8") else (runtime, "onnx", "mindspore"):
        try:
            kept = kept_thresholds(manifest.metrics, name)
        except InputError as error:
            raise InputError(
                f"--conf {_BEST}: {bundle.uri}: {error}; publish the bundle again, or give a score such as --conf 0.25"
            ) from error
        if kept:
            return np.array(kept.of(manifest.classes))
    raise InputError(
        f"--conf {_BEST}: {bundle.uri} has no best thresholds for the runtime {runtime}: its evaluation found no box, "
        "or an earlier version made it, or it was not evaluated; export or publish it again, or give a score such as "
        "--conf 0.25"
    )


def _runtime(bundle: Bundle, name: str, any_size: bool) -> RuntimeName:
    # onnxruntime starts faster than MindSpore, which takes seconds; its files take images of one size.
    return check_runtime(name or ("onnx" if ONNX in bundle.manifest.files and not any_size else "mindspore"))

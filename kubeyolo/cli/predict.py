"""``kubeyolo predict``: objects in images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubeyolo.cli.options import DEFAULT_RUNS, ConfigOption, JsonOption, RunsOption, SetOption, sets_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kubeyolo.bundle import Bundle
    from kubeyolo.evaluation.names import RuntimeName

    Image = NDArray[np.uint8]
    Rows = NDArray[np.float32]

_TOGETHER = 8


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    bundle: Annotated[
        str, typer.Option("--bundle", "-b", metavar="URI", help="Bundle; by default that of the newest run here.")
    ] = "",
    runtime: Annotated[
        str, typer.Option("--runtime", help="mindspore, onnx, int8 or mindir; by default onnx where the bundle has it.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Where images with drawn boxes are written.")
    ] = None,
    conf: Annotated[
        float | None, typer.Option("--conf", min=0, max=1, help="Least score, over predict.conf_threshold.")
    ] = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """Find objects in images with a bundle: a table or JSON, and images with boxes.

    Boxes are x1, y1, x2, y2 in pixels of the image.

    [bold]Examples[/bold]

      kubeyolo predict photo.jpg

      kubeyolo predict data/*.jpg --bundle store/models/yolov5n-r7/1.0 --runtime int8 -o drawn --json

      kubeyolo predict photo.jpg --conf 0.5 --set predict.iou_threshold=0.6
    """
    import json

    from kubeyolo.bundle import open_bundle
    from kubeyolo.config.load import load_config
    from kubeyolo.evaluation.predictor import detect, load_predictor
    from kubeyolo.progress import track

    config = load_config(None, config_file, sets_of(sets)).predict
    least = config.conf_threshold if conf is None else conf
    opened = open_bundle(bundle or _newest_bundle(runs))
    predictor = load_predictor(opened, _runtime(opened, runtime), batch_size=1)
    classes = opened.manifest.classes
    found: list[dict[str, Any]] = []
    groups = [images[start : start + _TOGETHER] for start in range(0, len(images), _TOGETHER)]
    for paths in track(groups, "predicting"):
        pixels = [_read(path) for path in paths]
        detected = detect(predictor, pixels, least, config.iou_threshold, config.max_det)
        for path, image, rows in zip(paths, pixels, detected, strict=True):
            drawn = _draw(image, rows, classes, path, output) if output else None
            found.append({"image": str(path), "boxes": _boxes(rows, classes), **({"drawn": drawn} if drawn else {})})
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print(found)


def _newest_bundle(runs: Path) -> str:
    import json

    from kubeyolo.errors import InputError

    summary = runs / "latest" / "summary.json"
    try:
        return str(json.loads(summary.read_text())["bundle"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{summary}: no finished run there; give --bundle") from error


def _runtime(bundle: Bundle, name: str) -> RuntimeName:
    from kubeyolo.bundle import ONNX
    from kubeyolo.evaluation.names import check_runtime

    # onnxruntime starts in a moment; MindSpore takes seconds.
    return check_runtime(name or ("onnx" if ONNX in bundle.manifest.files else "mindspore"))


def _read(path: Path) -> Image:
    from kubeyolo.data.decode import decode_image
    from kubeyolo.errors import InputError

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    image = decode_image(data)
    if image is None:
        raise InputError(f"{path}: not an image that can be decoded ({len(data)} bytes)")
    return image


def _boxes(rows: Rows, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "class": classes[int(row[5])],
            "score": round(float(row[4]), 4),
            "box": [round(float(value), 1) for value in row[:4]],
        }
        for row in rows
    ]


def _draw(image: Image, rows: Rows, classes: tuple[str, ...], path: Path, folder: Path) -> str:
    """Write the image with its boxes as a PNG or JPEG, as the image was, and return its path."""
    import cv2
    import numpy as np

    from kubeyolo.errors import InputError
    from kubeyolo.report.samples import BOX_COLORS

    canvas = np.ascontiguousarray(image[:, :, ::-1])
    thick = max(1, round(max(canvas.shape[:2]) / 400))
    for x1, y1, x2, y2, score, number in rows:
        name, color = classes[int(number)], BOX_COLORS[int(number) % len(BOX_COLORS)]
        red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
        corner = (round(float(x1)), round(float(y1)))
        cv2.rectangle(canvas, corner, (round(float(x2)), round(float(y2))), (blue, green, red), thick)
        place = (corner[0], max(corner[1] - 3 * thick, 12))
        for ink, width in (((0, 0, 0), 3 * thick), ((blue, green, red), thick)):
            cv2.putText(canvas, f"{name} {score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thick, ink, width)
    suffix = ".png" if path.suffix.lower() == ".png" else ".jpg"
    target = folder / f"{path.stem}{suffix}"
    copy = 1
    while target.exists():
        target, copy = folder / f"{path.stem}-{copy}{suffix}", copy + 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(suffix, canvas)[1].tobytes())
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    return str(target)


def _print(found: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    from kubeyolo.cli.tables import wide_console

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("class")
    for column in ("score", "x1", "y1", "x2", "y2"):
        table.add_column(column, justify="right")
    for one in found:
        for row in one["boxes"] or [{"class": "–", "score": "", "box": [""] * 4}]:
            table.add_row(one["image"], row["class"], str(row["score"]), *(str(value) for value in row["box"]))
    console = wide_console()
    console.print(table)
    for one in found:
        if "drawn" in one:
            console.print(one["drawn"])

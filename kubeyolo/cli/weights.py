"""``kubeyolo weights``: import published weights and export weights."""

from __future__ import annotations

import sys
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from kubeyolo.cli.options import BundleArgument, JsonOption
from kubeyolo.cli.tables import new_table, pairs_table
from kubeyolo.config.load import resolve_layers
from kubeyolo.config.text import read_text
from kubeyolo.consoles import SafeConsole
from kubeyolo.weights.class_file import read_class_file
from kubeyolo.weights.exporting import export_weights
from kubeyolo.weights.fit import Mismatch, WeightsMismatch
from kubeyolo.weights.importing import ImportedWeights, import_weights

_MOST_ROWS = 40
_TABLE_WIDTH = 200


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of weights: .weights, .pt, .pth, .ckpt or .safetensors.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", metavar="NAME", help="Model that the weights belong to.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="URI", help="Where to write the bundle.")],
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes",
            metavar="FILE",
            help="Names of the classes: one on each line, data.yaml, categories of COCO, .names or .data of darknet.",
        ),
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option("--num-classes", min=1, help="Number of classes; by default from the file.")
    ] = None,
    backbone: Annotated[
        bool,
        typer.Option(
            "--backbone",
            "--pretrained_backbone",
            help="Import only the backbone, so that a training can start from it.",
        ),
    ] = False,
    anchors: Annotated[
        str,
        typer.Option(
            "--anchors",
            metavar="LIST",
            help="Anchors the weights were trained with, in pixels, as in train.anchors; by default the anchors in "
            "the file, else the model's own.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    r"""Make a bundle from a file of weights. Pickled code in the file is not executed.

    [bold]Examples[/bold]

      kubeyolo weights import yolov5n.pt --model yolov5n-r7 -o models/yolov5n

      kubeyolo weights import best.pt --model yolov5s-r7 --classes names.txt -o minio://models/mine

      kubeyolo weights import yolov5s.pt --model yolov5s --backbone -o models/backbone

      kubeyolo weights import cells.weights --model yolov4-tiny -o models/cells --anchors
      '\[[9,11, 14,22, 25,20], [34,40, 52,61, 80,75]]'
    """
    names = read_class_file(classes) if classes else None
    try:
        imported = import_weights(file, model, output, num_classes, names, backbone, _anchors_of(model, anchors))
    except WeightsMismatch as error:
        _print_mismatches(error.rows)
        raise
    if as_json:
        print(dumps(asdict(imported), indent=1))
        return
    SafeConsole(soft_wrap=True).print(pairs_table("imported weights", _rows_of(imported, anchors)))


def _rows_of(imported: ImportedWeights, anchors: str) -> list[tuple[str, str]]:
    rows = [
        ("bundle", imported.bundle),
        ("kind", imported.kind),
        ("format", f"{imported.format}, names of {imported.layout}"),
        ("arrays", f"{imported.arrays} with {imported.values} values"),
    ]
    rows += [("taken from", imported.part)] if imported.part else []
    rows += [("not used", f"{imported.unused} arrays outside the backbone")] if imported.unused else []
    rows += [("classes", _shortened(imported.classes))] if imported.classes else []
    rows += [("names", note) for note in imported.notes]
    return rows + ([("anchors", anchors)] if anchors else [])


def export(
    bundle: BundleArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write: .safetensors, or .weights of darknet.")],
    names: Annotated[
        str,
        typer.Option(
            "--names", metavar="LAYOUT", help="Parameter names to write: kubeyolo, yolov5, scaledyolov4, darknet."
        ),
    ] = "kubeyolo",
    as_json: JsonOption = False,
) -> None:
    """Write the weights of a bundle to a file.

    [bold]Examples[/bold]

      kubeyolo weights export models/yolov5n yolov5n.safetensors

      kubeyolo weights export models/yolov5n yolov5n.safetensors --names yolov5
    """
    exported = export_weights(bundle, file, names)
    about = {"file": str(exported.file), "format": exported.format, "names": exported.layout, "arrays": exported.arrays}
    if as_json:
        print(dumps({**about, "notes": exported.notes}, indent=1))
        return
    rows = [(key, str(value)) for key, value in about.items()] + [("note", note) for note in exported.notes]
    SafeConsole(soft_wrap=True).print(pairs_table("exported weights", rows))


def _anchors_of(model: str, text: str) -> tuple[tuple[float, ...], ...]:
    if not text:
        return ()
    layers = [("--anchors", {"train.anchors": read_text(text, "--anchors")})]
    return resolve_layers(model, layers).config.train.anchors


def _shortened(names: tuple[str, ...]) -> str:
    return f"{len(names)}: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"


def _print_mismatches(rows: tuple[Mismatch, ...]) -> None:
    """Print to standard error the parameters that do not fit, one per row."""
    table = new_table()
    for column in ("parameter", "in the file", "expected", "found"):
        table.add_column(column, overflow="fold")
    for row in rows[:_MOST_ROWS]:
        shapes = [
            "–" if shape is None else " x ".join(map(str, shape)) or "one value" for shape in (row.expected, row.found)
        ]
        name = "–" if row.expected is None else row.name
        table.add_row(*(Text(cell.encode("utf-8", "replace").decode()) for cell in (name, row.in_file or "–", *shapes)))
    # Names and shapes are not folded on a narrow terminal, so that they can be copied and searched.
    console = SafeConsole(sys.stderr, width=_TABLE_WIDTH)
    console.print(table, crop=False, soft_wrap=True)
    if len(rows) > _MOST_ROWS:
        console.print(f"and {len(rows) - _MOST_ROWS} more")

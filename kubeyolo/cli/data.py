"""``kubeyolo sample | copy | convert``: generate a data set, copy it into or out of a store, write it as COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kubeyolo import bundle
from kubeyolo.cli.options import ConfigOption, FormatOption, SetOption, StrictOption, data_pairs, sets_of
from kubeyolo.cli.tables import print_findings
from kubeyolo.config.load import load_config
from kubeyolo.data import manifest
from kubeyolo.data.convert import convert_dataset
from kubeyolo.data.sample import MOST_SEED, SHAPES, generate_sample_dataset
from kubeyolo.data.shards import Reading
from kubeyolo.formats import counted, size_text
from kubeyolo.storage.copy import copy_file, copy_tree, is_file


def sample(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder; not created if an error occurs.")],
    train: Annotated[
        int | None, typer.Option("--train", min=1, help="Training images; by default 240 with shapes, else 296.")
    ] = None,
    val: Annotated[
        int | None, typer.Option("--val", min=1, help="Validation images; by default 60 with shapes, else 74.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="The same seed gives the same images.")] = 0,
    kind: Annotated[
        str, typer.Option("--kind", metavar="NAME", help="shapes, or lookalike: classes that differ only in a detail.")
    ] = SHAPES.name,
) -> None:
    """Generate a small COCO data set on textured backgrounds: shapes, which a detector can learn in minutes.

    The kind lookalike has six classes of buttons that differ only in their holes: they are easy to find, but hard to
    tell apart.

    [bold]Examples[/bold]

      kubeyolo sample data/sample

      kubeyolo sample data/larger --train 1000 --val 200 --seed 7

      kubeyolo sample data/buttons --kind lookalike
    """
    print(generate_sample_dataset(folder, seed=seed, train=train, val=val, kind=kind))


def copy(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder or file, or its URI in a store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Folder, file or URI to write to.")],
) -> None:
    """Copy a folder or a file into or out of an object store, such as a data set for a cluster.

    Files of the target with the same name are replaced, all other files stay. If SOURCE is a file, TARGET must name a
    file too; an existing file is replaced in one step.

    [bold]Examples[/bold]

      kubeyolo copy data/bccd minio://kubeyolo/data/bccd

      kubeyolo copy latest.json minio://kubeyolo/data/latest.json

      kubeyolo copy minio://kubeyolo/models/yolov5n-r7/1.0.0 bundle
    """
    if is_file(source):
        count, size = copy_file(source, target)
    else:
        count, size = copy_tree(source, target, last=(bundle.MANIFEST_NAME, manifest.MANIFEST_NAME))
    print(f"{counted(count, 'file')}, {size_text(size)}: {target}")


def convert(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder or URI of a data set.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder; not created if an error occurs.")],
    data_format: FormatOption = "",
    strict: StrictOption = False,
    link: Annotated[bool, typer.Option("--link", help="Make hard links to the images where possible.")] = False,
    config_file: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Check a data set and write it as COCO: annotations/<split>.json and a folder of images for each split.

    COCO, YOLO, Pascal VOC, CVAT and LabelMe are read as annotation tools export them (docs/data.md). The data set is
    checked and corrected as by 'kubeyolo validate'.

    [bold]Examples[/bold]

      kubeyolo convert data/roboflow data/cells

      kubeyolo convert data/voc data/cells --format voc --set data.split=0.1 --link
    """
    config = load_config(None, config_file, [*sets_of(sets), *data_pairs(data_format, strict)])
    made = convert_dataset(data, out, Reading(config.data, config.evaluate.split), link)
    print(made.manifest.layout)
    for name, split in made.manifest.splits.items():
        print(f"{name}: {split.images:,} images, {split.boxes:,} boxes")
    print_findings([finding.facts() for finding in made.manifest.findings])
    print(made.folder)

"""``kubeyolo convert``: a data set in any layout that is read, written as COCO."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.cli.options import ConfigOption, FormatOption, SetOption, StrictOption, data_pairs, sets_of


def convert(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder or URI of a data set.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write: a new folder, made whole or not at all.")],
    data_format: FormatOption = "",
    strict: StrictOption = False,
    link: Annotated[bool, typer.Option("--link", help="Make hard links to the images where possible.")] = False,
    config_file: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Check a data set and write it as COCO: annotations/<split>.json and a folder of images for each split.

    COCO, YOLO, Pascal VOC, CVAT and LabelMe are read as annotation tools export them (docs/data.md). The data set is
    checked as by 'kubeyolo validate', and written with the corrections.

    [bold]Examples[/bold]

      kubeyolo convert data/roboflow data/cells

      kubeyolo convert data/voc data/cells --format voc --set data.split=0.1 --link
    """
    from kubeyolo.cli.tables import print_findings
    from kubeyolo.config.load import load_config
    from kubeyolo.data.convert import convert_dataset
    from kubeyolo.data.shards import Reading

    config = load_config(None, config_file, [*sets_of(sets), *data_pairs(data_format, strict)])
    made = convert_dataset(data, out, Reading(config.data, config.evaluate.split), link)
    print(made.manifest.layout)
    for name, split in made.manifest.splits.items():
        print(f"{name}: {split.images:,} images, {split.boxes:,} boxes")
    print_findings([finding.facts() for finding in made.manifest.findings])
    print(made.folder)

"""``kubeyolo sample``: a data set to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def sample(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write; made whole or not at all.")],
    train: Annotated[int, typer.Option("--train", min=1, help="Training images.")] = 240,
    val: Annotated[int, typer.Option("--val", min=1, help="Validation images.")] = 60,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same images.")] = 0,
) -> None:
    """Generate a small COCO data set: shapes on textured backgrounds, which a detector can learn in minutes.

    [bold]Examples[/bold]

      kubeyolo sample data/sample

      kubeyolo sample data/larger --train 1000 --val 200 --seed 7
    """
    from kubeyolo.data.sample import generate_sample_dataset

    print(generate_sample_dataset(folder, seed=seed, train=train, val=val))

"""``kubeyolo estimate``: how fast a training is on different numbers of devices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from kubeyolo.cli.options import ConfigOption, JsonOption, ModelOption, SetOption, sets_of
from kubeyolo.cli.tables import new_table, wide_console
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.config.section import MOST_PROCESSES
from kubeyolo.errors import InputError, check_known
from kubeyolo.estimate.devices import DEVICES, DeviceFacts
from kubeyolo.estimate.published import PUBLISHED_RUNS, PublishedRun
from kubeyolo.estimate.run import FACTOR, UNKNOWN_IMAGES
from kubeyolo.estimate.scaling import ScalingRow, scaling
from kubeyolo.formats import about_duration, about_size, counted, share_text, size_text
from kubeyolo.models.named_facts import check_image_size, model_facts
from kubeyolo.resources import usable_processors
from kubeyolo.steps.given_dataset import count_images, whole_number

_PROCESSOR = "CPU"
_KINDS: dict[str, DeviceFacts | None] = {**{str(kind): facts for kind, facts in DEVICES.items()}, _PROCESSOR: None}


def estimate(
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", metavar="DATA", help="Number of training images, stored data set, or folder or URI of data."
        ),
    ],
    devices: Annotated[
        str, typer.Option("--devices", metavar="N,N,…", help="Numbers of devices; each has one training process.")
    ] = "8",
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="KIND",
            help=f"Kind of the devices, repeatable: {', '.join(_KINDS)}. By default every kind of Ascend.",
        ),
    ] = None,
    model: ModelOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate speed, time and memory of a training on different numbers of devices.

    Each device has train.per_batch_size images of a step. Nothing is measured: the speed of Ascend devices is from data
    sheets and published trainings. Trainings of the model that were published are compared with their estimates.

    [bold]Examples[/bold]

      kubeyolo estimate --model yolov5s --data 118287 --devices 8,64,512

      kubeyolo estimate --model yolov4 --data store/datasets/coco-3f0c9a1b22d4 --devices 1,8 --set train.image_size=416

      kubeyolo estimate --model yolov5n-r7 --data data/bccd --device CPU --devices 1,2 --json
    """
    config = load_config(model, config_file, sets_of(sets))
    check_image_size(config)
    counts, chosen = _counts(devices), kinds or [kind for kind, device in _KINDS.items() if device]
    for kind in chosen:
        check_known("--device", kind, _KINDS)
    facts, images = model_facts(config.model), count_images(data, config)
    rows: list[ScalingRow] = []
    for kind in dict.fromkeys(chosen):
        device = _KINDS[kind]
        rows += scaling(facts, config, images, counts, device, usable_processors() if device is None else None)
    published = [run for run in PUBLISHED_RUNS if run.model == config.model]
    if as_json:
        print(json.dumps(_document(config, images, rows, published), indent=1))
        return
    _print(config, images, rows, published)


def _counts(text: str) -> list[int]:
    """Return the numbers of devices in a text such as ``8,64,512``.

    Raises:
        InputError: A number is missing, or is out of range.
    """
    counts = []
    for part in text.split(","):
        count = whole_number(part)
        if count is None or not 1 <= count <= MOST_PROCESSES:
            raise InputError(
                f"--devices {text}: {part.strip()!r} is not a number from 1 to {MOST_PROCESSES}; write numbers with "
                "commas, such as 8,64,512"
            )
        counts.append(count)
    return counts


def _document(
    config: Config, images: Mapping[str, int], rows: Sequence[ScalingRow], published: Sequence[PublishedRun]
) -> dict[str, Any]:
    train = config.train
    return {
        "model": config.model,
        "images": dict(images),
        "image_size": train.image_size,
        "per_batch_size": train.per_batch_size,
        "max_epoch": train.max_epoch,
        "workers": config.data.workers,
        "rows": [
            {**asdict(row), "step": {**asdict(row.step), "network": row.step.network, "total": row.step.total}}
            for row in rows
        ],
        "published": [{**asdict(run), "estimate": run.estimate, "error": run.error} for run in published],
        "devices": {
            name: asdict(device) for name, device in DEVICES.items() if any(row.device == name for row in rows)
        },
        "notes": list(_notes(config, images, rows)),
    }


def _print(
    config: Config, images: Mapping[str, int], rows: Sequence[ScalingRow], published: Sequence[PublishedRun]
) -> None:
    train, console = config.train, wide_console()
    title = (
        f"{config.model}, {images['train']:,} images of {train.image_size} px, {train.per_batch_size} on a device, "
        f"{counted(train.max_epoch, 'epoch')}"
    )
    table = new_table("device", title=title)
    columns = ("devices", "images/s", "epoch", "training", "efficiency", "memory of a process")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("limited by", no_wrap=True)
    for row in rows:
        on_host = "" if row.device == _PROCESSOR else f", host {about_size(row.host_memory)}"
        table.add_row(
            row.device,
            str(row.devices),
            f"{row.images_per_second:.3g}" if row.images_per_second < 1000 else f"{row.images_per_second:,.0f}",
            about_duration(row.epoch_seconds),
            about_duration(row.training_seconds),
            share_text(row.efficiency, 0),
            f"{about_size(row.memory)}{on_host}",
            row.limit,
        )
    console.print(table)
    if published:
        console.print(_published_table(published))
    for line in _notes(config, images, rows):
        print(line)


def _published_table(published: Sequence[PublishedRun]) -> Table:
    table = new_table("published", title="published trainings, and their estimates with the loaders of these programs")
    for column in ("devices", "size", "batch", "images/s", "estimate", "error"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for run in published:
        table.add_row(
            f"{run.kind}, {run.source}",
            str(run.devices),
            f"{run.image_size:.0f}",
            str(run.per_batch_size),
            f"{run.images_per_second:.0f}",
            f"{run.estimate:.0f}",
            f"{100 * run.error:+.0f} %",
            ", ".join(filter(None, (run.note, "fitted" if run.is_fitted else ""))),
        )
    return table


def _notes(config: Config, images: Mapping[str, int], rows: Sequence[ScalingRow]) -> list[str]:
    notes = []
    if any(row.device != _PROCESSOR for row in rows):
        notes.append(
            "not measured on Ascend: peaks are from data sheets, and the share of them that a training reaches is "
            f"fitted to published trainings; times may differ by a factor of {FACTOR['Ascend']:g}"
        )
    if any(row.limit == "loader" for row in rows):
        notes.append(
            f"limited by the loader: data.workers = {config.data.workers} of each process make the batches too slowly; "
            "more workers do not change the weights"
        )
    for name, device in DEVICES.items():
        needed = max((row.memory for row in rows if row.device == name), default=0)
        if needed > device.memory:
            notes.append(
                f"{name} has {size_text(device.memory)} of memory, less than the {size_text(needed)} of a process: set "
                "train.recompute=true, or lower train.per_batch_size or train.image_size"
            )
    if config.train.val_split not in images and config.train.val_interval != 0:
        notes.append(f"the size of {config.train.val_split} is unknown: validations assume {UNKNOWN_IMAGES} images")
    return notes

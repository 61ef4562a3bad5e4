"""``kubeyolo anchors``: anchors for a data set."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import Any

from kubeyolo.cli.options import ConfigOption, DatasetArgument, JsonOption, ModelOption, SetOption, sets_of
from kubeyolo.cli.tables import new_table, wide_console
from kubeyolo.config.anchor_forms import anchors_text
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import open_dataset
from kubeyolo.formats import counted, share_text
from kubeyolo.storage.place import Place
from kubeyolo.training.anchor_search import AnchorFit, FoundAnchors, find_anchors


def anchors(
    dataset: DatasetArgument,
    model: ModelOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute anchors from the boxes of a data set, and compare them with the anchors of the model.

    Uses the boxes of the split train, scaled to train.image_size. Prints the setting for a training with the computed
    anchors. Writes nothing.

    [bold]Examples[/bold]

      kubeyolo anchors store/datasets/bccd-3f0c9a1b22d4 --model yolov5n-r7

      kubeyolo anchors store/datasets/bccd-3f0c9a1b22d4 --model yolov4 --set train.image_size=320 --json
    """
    config = load_config(model, config_file, sets_of(sets))
    found = find_anchors(open_dataset(Place.of(dataset)).index("train"), config)
    if as_json:
        print(json.dumps(_document(dataset, config, found), indent=1))
        return
    _print(config, found)


def _document(dataset: str, config: Config, found: FoundAnchors) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "model": config.model,
        "image_size": config.train.image_size,
        "anchor_t": config.train.anchor_t,
        "boxes": found.boxes,
        "left_out": found.left_out,
        "crowds": found.crowds,
        "own": asdict(found.own),
        "given": None if found.given is None else asdict(found.given),
        "computed": asdict(found.computed),
        "own_are_as_good": found.own_are_as_good,
        "own_are_enough": found.own_are_enough,
        "setting": _setting(found.computed),
        "warnings": list(found.warnings),
    }


def _print(config: Config, found: FoundAnchors) -> None:
    train = config.train
    title = f"anchors of {config.model} for {found.boxes:,} boxes at {train.image_size} px"
    left_out = [f"{found.left_out:,} too small or too long boxes"] if found.left_out else []
    left_out += [counted(found.crowds, "crowd")] if found.crowds else []
    if left_out:
        title += f" ({' and '.join(left_out)} are left out)"
    table = new_table("", title=title)
    for column in ("best possible recall", "mean overlap", "anchors a box"):
        table.add_column(column, justify="right")
    rows = {"the model's own": found.own, "train.anchors": found.given, "computed": found.computed}
    for name, fit in rows.items():
        if fit is not None:
            table.add_row(name, f"{fit.recall:.3f}", f"{fit.overlap:.3f}", f"{fit.per_box:.2f}")
    wide_console().print(table)
    for name, fit in rows.items():
        if fit is not None:
            print(f"{name}: {anchors_text(fit.anchors)}")
    for line in found.warnings:
        print(f"warning: {line}")
    print(_verdict(config, found))
    print(f"to train with the computed anchors: --set {shlex.quote(_setting(found.computed))}")


def _verdict(config: Config, found: FoundAnchors) -> str:
    if found.own_are_as_good:
        return "the model's own anchors fit equally well: keep them (leave train.anchors empty)"
    overlap = f"the mean overlap is {found.computed.overlap:.3f} instead of {found.own.overlap:.3f}"
    if found.by_overlap:
        return f"the computed anchors fit better: {overlap}"
    own, computed = (share_text(fit.recall) for fit in (found.own, found.computed))
    within = f"within train.anchor_t = {config.train.anchor_t:g}"
    if found.own_are_enough:
        fit = f"keep the model's own anchors: they fit {own} of the boxes {within}"
        return f"{fit}; the computed anchors are closer to the boxes: {overlap}"
    return f"the computed anchors fit better: {computed} of the boxes {within} instead of {own}, and {overlap}"


def _setting(fit: AnchorFit) -> str:
    return f"train.anchors={anchors_text(fit.anchors)}"

"""``kubeyolo anchors``: anchors for a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kubeyolo.cli.options import ConfigOption, DatasetArgument, JsonOption, ModelOption, SetOption, sets_of

if TYPE_CHECKING:
    from kubeyolo.config.schema import Config
    from kubeyolo.training.anchor_search import AnchorFit, FoundAnchors


def anchors(
    dataset: DatasetArgument,
    model: ModelOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute anchors from the boxes of a data set, and compare them with those of the model.

    The boxes are those of the split train at train.image_size. Printed is what to type to train with the computed
    anchors; nothing is written.

    [bold]Examples[/bold]

      kubeyolo anchors store/datasets/bccd-3f0c9a1b22d4 --model yolov5n-r7

      kubeyolo anchors store/datasets/bccd-3f0c9a1b22d4 --model yolov4 --set train.image_size=320 --json
    """
    import json

    from kubeyolo.config.load import load_config
    from kubeyolo.data.dataset import open_dataset
    from kubeyolo.training.anchor_search import find_anchors

    config = load_config(model, config_file, sets_of(sets))
    found = find_anchors(open_dataset(dataset).index("train"), config)
    if as_json:
        print(json.dumps(_document(dataset, config, found), indent=1))
        return
    _print(config, found)


def _document(dataset: str, config: Config, found: FoundAnchors) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "dataset": dataset,
        "model": config.model,
        "image_size": config.train.image_size,
        "anchor_t": config.train.anchor_t,
        "boxes": found.boxes,
        "left_out": found.left_out,
        "own": asdict(found.own),
        "given": None if found.given is None else asdict(found.given),
        "computed": asdict(found.computed),
        "own_are_as_good": found.own_are_as_good,
        "own_are_enough": found.own_are_enough,
        "setting": _setting(found.computed),
        "warnings": list(found.warnings),
    }


def _print(config: Config, found: FoundAnchors) -> None:
    import shlex

    from rich import box
    from rich.table import Table

    from kubeyolo.cli.tables import wide_console
    from kubeyolo.config.anchor_forms import anchors_text

    train = config.train
    title = f"anchors of {config.model} for {found.boxes:,} boxes at {train.image_size} px"
    if found.left_out:
        title += f" ({found.left_out:,} too small or too long ones are left out)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column("", no_wrap=True)
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
    print(f"to train with the computed ones: --set {shlex.quote(_setting(found.computed))}")


def _verdict(config: Config, found: FoundAnchors) -> str:
    if found.own_are_as_good:
        return "the model's own anchors are as good: keep them (leave train.anchors empty)"
    overlap = f"the mean overlap is {found.computed.overlap:.3f} in place of {found.own.overlap:.3f}"
    if found.by_overlap:
        return f"the computed anchors fit better: {overlap}"
    own, computed = (f"{100 * fit.recall:.1f} %" for fit in (found.own, found.computed))
    within = f"within train.anchor_t = {config.train.anchor_t:g}"
    if found.own_are_enough:
        fit = f"the model's own anchors will do: they fit {own} of the boxes {within}"
        return f"{fit}; the computed ones lie closer: {overlap}"
    return f"the computed anchors fit better: {computed} of the boxes {within} in place of {own}, and {overlap}"


def _setting(fit: AnchorFit) -> str:
    from kubeyolo.config.anchor_forms import anchors_text

    return f"train.anchors={anchors_text(fit.anchors)}"

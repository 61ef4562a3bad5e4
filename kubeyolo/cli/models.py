"""``kubeyolo models``: the detectors that can be trained."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from kubeyolo.cli.options import ConfigOption, JsonOption, SetOption, sets_of
from kubeyolo.cli.tables import figure, flat, new_table, pairs_table, wide_console
from kubeyolo.config.load import load_resolved, preset_bands
from kubeyolo.config.recipes import with_recipe
from kubeyolo.models.named_facts import model_facts, model_names


def list_models(as_json: JsonOption = False) -> None:
    """List the models: size, multiply-adds for an image of native size, and published AP on COCO.

    [bold]Examples[/bold]

      kubeyolo models list

      kubeyolo models list --json
    """
    facts = [model_facts(name) for name in model_names()]
    if as_json:
        keys = ("name", "family", "parameters", "multiply_adds", "image_size", "strides")
        print(json.dumps([{key: getattr(each, key) for key in keys} for each in facts], indent=1))
        return
    # Without the family, the table fits into 80 columns.
    table = new_table("model")
    for column in ("parameters", "multiply-adds", "size", "strides", "COCO AP"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in facts:
        best = max((result.ap for result in one.published), default=None)
        table.add_row(
            one.name,
            f"{one.parameters / 1e6:.2f} M",
            f"{one.multiply_adds / 1e9:.2f} G",
            str(one.image_size),
            ", ".join(str(stride) for stride in one.strides),
            "–" if best is None else f"{best:.3f}",
        )
    wide_console().print(table)


def show_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.")],
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the facts of a model, and its training configuration, grouped as in its preset.

    [bold]Examples[/bold]

      kubeyolo models show yolov5n-r7

      kubeyolo models show yolov5s --config my.yaml --set train.lr=0.02 --json
    """
    facts = model_facts(name)
    resolved = load_resolved(name, config_file, sets_of(sets))
    config = with_recipe(resolved, bool(resolved.config.train.weights)).config.model_dump(mode="json")
    published, bands = [asdict(result) for result in facts.published], preset_bands(name)
    of_facts = ("paper", "parameters", "multiply_adds", "image_size", "strides", "anchors")
    about = {key: getattr(facts, key) for key in of_facts}
    if as_json:
        print(json.dumps({"model": name, **about, "published": published, "config": config, "bands": bands}, indent=1))
        return
    console = wide_console()
    rows = [(key, figure(value)) for key, value in about.items()]
    for result in published:
        where = f"{result['split']} at {result['image_size']} ({result['source']})"
        rows.append(("published", f"AP {result['ap']:.3f} on {where}"))
    console.print(pairs_table(name, rows))
    values = flat(config)
    for band, keys in bands.items():
        console.print(pairs_table(f"configuration: {band}", [(key, figure(values.pop(key))) for key in keys]))
    console.print(
        pairs_table(
            "configuration: keys that the preset does not set", [(key, figure(value)) for key, value in values.items()]
        )
    )

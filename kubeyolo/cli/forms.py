"""The form that a command line fills in, and ``kubeyolo configure``, which shows the resulting run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.catalogue import DETECTOR_TRAINING
from kubeyolo.cli.options import (
    DEFAULT_STORE,
    ConfigOption,
    FieldOption,
    JsonOption,
    ModelOption,
    SetOption,
    StoreOption,
    WeightsOption,
    sets_of,
    weights_pairs,
)
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import check_fields, fill_form, says_the_same
from kubeyolo.config.load import load_config, sparse_values
from kubeyolo.errors import InputError, split_pair
from kubeyolo.steps import configure as step
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.storage.location import absolute

PLACES = ("data", "store", "weights")


def training_form(
    data: str,
    store: str,
    model: str | None,
    version: str,
    config_file: Path | None,
    sets: list[str] | None,
    pairs: list[str] | None = None,
    weights: str = "",
) -> dict[str, str]:
    """Return the filled-in form of the training pipeline.

    A setting that has a field is put into this field, so that Kubeflow's comparison page shows it. URIs are absolute.
    A pair with an empty value does not change its field.

    Raises:
        InputError: The configuration is wrong, or a field is unknown or given twice.
    """

    def text_of(name: str, value: str) -> str:
        value = value.strip()
        return absolute(value) if name in PLACES and value else value

    sets = [*sets_of(sets), *weights_pairs(weights)]
    # Checked here first, so that the message can name the file or the option.
    load_config(model, config_file, sets_of(sets))
    names = list(CompiledPipeline.named().fields)
    form = fill_form(names, model, config_file, sets_of(sets), data=data, store=store, version=version)
    is_default_model = not model and "model" not in sparse_values(config_file, sets_of(sets))
    form = {name: text_of(name, value) for name, value in form.items()}
    fields = dict(split_pair(pair, "--param", "max_epoch=10", "FIELD=VALUE") for pair in pairs or ())
    for name, text in check_fields(fields, names).items():
        value = text_of(name, text)
        if not value:
            continue
        is_same = says_the_same(name, form.get(name, value), value)
        if not is_same and not (name == "model" and is_default_model):
            raise InputError(
                f"{name} is given twice: {value!r} by --param, and {form[name]!r} by another option; leave one out"
            )
        form[name] = value
    return check_fields(form, names)


def configure(
    data: Annotated[str, typer.Option("--data", "-d", metavar="URI", help="Folder or URI of a data set.")],
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    weights: WeightsOption = "",
    version: Annotated[str, typer.Option("--version", metavar="NAME", help="Version to publish under.")] = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    params: FieldOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a training and show its plan: name of the run, differences from the preset, and an estimate.

    Nothing is started and nothing is written.

    [bold]Examples[/bold]

      kubeyolo configure --data data/bccd --set train.max_epoch=50

      kubeyolo configure --data minio://kubeyolo/data/coco --store minio://kubeyolo --json
    """
    form = training_form(data, store, model, version, config_file, sets, params, weights)
    run = step.configure(DETECTOR_TRAINING, form)
    if as_json:
        print(json.dumps(_facts(run), indent=1))
        return
    print(*run.lines(), sep="\n")


def _facts(run: ConfiguredRun) -> dict[str, object]:
    view = run.view()
    return {
        **run.struct(),
        "images": dict(run.images),
        "config": run.config.model_dump(mode="json"),
        "origins": dict(run.resolved.origins),
        "estimate": list(view.estimate),
        "notes": list(view.notes),
    }

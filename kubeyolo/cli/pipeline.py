"""``kubeyolo pipeline``: the pipelines as Kubeflow reads them, and their runs there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.cli import cluster, gate, schedule
from kubeyolo.cli.options import ConfigOption, SetOption, sets_of

group = typer.Typer(help="The pipelines as Kubeflow reads them, and their runs there.", no_args_is_help=True)
group.command("submit")(cluster.submit)
group.command("status")(cluster.status)
group.command("logs")(cluster.logs)
group.command("cancel")(cluster.cancel)
group.command("list")(cluster.list_runs)
group.command("gate")(gate.gate)
group.add_typer(schedule.group, name="schedule")


@group.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pipeline.")] = "detector-training",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; standard output without it.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FILE", help="YAML file of image references by image name.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="NAME=REFERENCE", help="One image reference.")
    ] = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    without_literals: Annotated[
        bool, typer.Option("--without-literals", help="Without drop-downs, for servers of Kubeflow before 2.17.")
    ] = False,
) -> None:
    """Write out a compiled pipeline, with image references bound and the configuration as defaults of its form.

    Bind digests, not tags: Kubeflow's cache goes by the reference.

    [bold]Examples[/bold]

      kubeyolo pipeline show -o detector-training.yaml

      kubeyolo pipeline show -o bound.yaml --images build/images.yaml --config my.yaml

      kubeyolo pipeline show --image kubeyolo-train=registry:5000/kubeyolo-train@sha256:0a1b…
    """
    from kubeyolo.compiled import bind
    from kubeyolo.compiled.images import bind_image_file
    from kubeyolo.compiled.read import fields_of, pipeline_text
    from kubeyolo.config.form import MODEL, fill_form
    from kubeyolo.config.load import load_config, sparse_values
    from kubeyolo.errors import InputError
    from kubeyolo.steps.checked_form import check_settings
    from kubeyolo.storage.file_errors import file_errors

    text = bind_image_file(pipeline_text(name), images, image or (), complete=False)
    if config_file or sets:
        load_config(None, config_file, sets_of(sets))
        fields = list(fields_of(text))
        chosen = sparse_values(config_file, sets_of(sets)).get(MODEL)
        if chosen and MODEL not in fields:
            raise InputError(f"model = {chosen!r}: {name} has no field {MODEL}; it takes the model of its bundle")
        form = fill_form(fields, None, config_file, sets_of(sets))
        check_settings(name, form)
        text = bind.bind_defaults(text, form)
    if without_literals:
        text = bind.without_literals(text)
    if output is None:
        print(text, end="")
        return
    if not output.parent.is_dir():
        raise InputError(f"{output}: cannot be written: there is no folder {output.parent}; make it, or choose another")
    with file_errors(output):
        output.write_text(text, encoding="utf-8")
    print(output)

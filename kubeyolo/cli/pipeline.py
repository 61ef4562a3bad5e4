"""``kubeyolo pipeline show | submit``: prints a compiled pipeline, or submits a run of it to Kubeflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.catalogue import DETECTOR_TRAINING
from kubeyolo.cli.cluster import HostOption, WaitOption, commit_label, wait_for
from kubeyolo.cli.forms import training_form
from kubeyolo.cli.options import (
    DEFAULT_IMAGES,
    ConfigOption,
    FieldOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    ResourcesOption,
    SetOption,
    resources_of,
    sets_of,
)
from kubeyolo.compiled.images import bind_image_file
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import MODEL, fill_form
from kubeyolo.config.load import load_config, sparse_values
from kubeyolo.errors import InputError, WorkError
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.remote import RemoteRun
from kubeyolo.steps.checked_form import check_form, check_settings
from kubeyolo.steps.configure import configure
from kubeyolo.steps.naming import dataset_label
from kubeyolo.storage.file_errors import file_errors


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pipeline.")] = "detector-training",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; by default standard output.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", metavar="FILE", help="YAML file of image references by image name.")
    ] = None,
    image: Annotated[
        list[str] | None, typer.Option("--image", metavar="NAME=REFERENCE", help="One image reference.")
    ] = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    resources: ResourcesOption = None,
    without_literals: Annotated[
        bool,
        typer.Option("--without-literals", help="Text fields instead of drop-down lists, for Kubeflow before 2.17."),
    ] = False,
) -> None:
    """Write a compiled pipeline with image references and resources; the configuration sets the defaults of its form.

    Refer to images by digest, not by tag: Kubeflow's cache keys contain the reference.

    [bold]Examples[/bold]

      kubeyolo pipeline show -o detector-training.yaml

      kubeyolo pipeline show -o bound.yaml --images build/images.yaml --config my.yaml

      kubeyolo pipeline show --image kubeyolo-train=registry:5000/kubeyolo-train@sha256:0a1b…

      kubeyolo pipeline show --resources train.memory=32Gi --resources train.cpu=8
    """
    compiled = bind_image_file(CompiledPipeline.named(name), images, image or (), complete=False)
    if resources:
        compiled = compiled.bind_resources(resources_of(resources))
    if config_file or sets:
        load_config(None, config_file, sets_of(sets))
        fields = list(compiled.fields)
        chosen = sparse_values(config_file, sets_of(sets)).get(MODEL)
        if chosen and MODEL not in fields:
            raise InputError(
                f"model = {chosen!r}: {name} has no field {MODEL}; the pipeline uses the model of its bundle"
            )
        form = fill_form(fields, None, config_file, sets_of(sets))
        check_settings(name, form)
        compiled = compiled.bind_defaults(form)
    if without_literals:
        compiled = compiled.without_literals()
    if output is None:
        print(compiled.text, end="")
        return
    if not output.parent.is_dir():
        raise InputError(
            f"{output}: cannot be written: there is no folder {output.parent}; create it, or choose a different folder"
        )
    with file_errors(output):
        output.write_text(compiled.text, encoding="utf-8")
    print(output)


def submit(
    data: Annotated[str, typer.Option("--data", metavar="URI", help="Data set in the object store.")],
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="KUBEYOLO_STORE",
            metavar="URI",
            help="Store, as minio://bucket/prefix; by default from the cluster's ConfigMap.",
        ),
    ] = "",
    model: ModelOption = None,
    version: Annotated[
        str,
        typer.Option("--version", metavar="NAME", help="Version to publish under; by default made from the content."),
    ] = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    params: FieldOption = None,
    images: ImagesOption = DEFAULT_IMAGES,
    resources: ResourcesOption = None,
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="Experiment; by default <model>-<data set>.")
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the run; by default generated.")] = "",
    wait: WaitOption = False,
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """Submit a run of the detector training pipeline to Kubeflow.

    Exit codes: 0 submitted, or with --wait succeeded; 1 failed; 2 could not be submitted; 3 terminated.

    [bold]Examples[/bold]

      kubeyolo pipeline submit --data minio://kubeyolo/data/bccd --store minio://kubeyolo --wait

      kubeyolo pipeline submit --data minio://kubeyolo/data/bccd --store minio://kubeyolo --param max_epoch=100

      kubeyolo pipeline submit --data minio://kubeyolo/data/bccd --resources train.memory=32Gi --resources train.cpu=8
    """
    pipeline = CompiledPipeline.named().bind_resources(resources_of(resources))
    form = training_form(data, store, model, version, config_file, sets, params)
    checked = check_form(DETECTOR_TRAINING, form, is_remote=True)
    try:
        # If the store is not known here, the first step on the cluster makes the same checks.
        limits = pipeline.memory_limits
        configured = configure(DETECTOR_TRAINING, form, is_remote=True, memory_limits=limits) if checked.store else None
    except WorkError as error:
        raise InputError(f"could not be submitted: {error}") from error
    compiled = bind_image_file(pipeline, images)
    kubeflow = Kubeflow(host)
    versions = kubeflow.pipeline_version(DETECTOR_TRAINING, compiled)
    label = f"{checked.resolved.config.model}-{dataset_label(data)}"
    group = kubeflow.make_experiment(experiment or label)
    run_name = name or f"{configured.name if configured else label}-{commit_label()}"
    run = kubeflow.submit(run_name, group, versions, form)
    _print_submitted(kubeflow, run, as_json and not wait)
    if wait:
        wait_for(kubeflow, run, as_json)


def _print_submitted(kubeflow: Kubeflow, run: RemoteRun, as_json: bool) -> None:
    address = f"{kubeflow.host}/#/runs/details/{run.id}"
    if as_json:
        print(json.dumps({"id": run.id, "name": run.name, "address": address}, indent=1))
    else:
        print(f"run {run.name}\nid {run.id}\npage {address}", flush=True)

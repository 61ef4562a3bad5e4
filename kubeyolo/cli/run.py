"""``kubeyolo run``: the whole pipeline on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import typer

from kubeyolo.catalogue import DETECTOR_TRAINING
from kubeyolo.cli.forms import training_form
from kubeyolo.cli.options import (
    DEFAULT_IMAGES,
    DEFAULT_RUNS,
    DEFAULT_STORE,
    ConfigOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    RunsOption,
    SetOption,
    StoreOption,
    WeightsOption,
)
from kubeyolo.cli.streams import stored_work
from kubeyolo.cli.tables import RunDisplay, coco_table, wide_console
from kubeyolo.compiled.images import bind_image_file
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError
from kubeyolo.formats import duration
from kubeyolo.runs.container import ContainerRunner
from kubeyolo.runs.folder import RunFolder
from kubeyolo.runs.interrupt import interruption_words
from kubeyolo.runs.local import LocalRun, RunOutcome, run_local
from kubeyolo.source import versions_digest
from kubeyolo.steps.checked_form import check_form
from kubeyolo.steps.configure import configure
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.storage.place import Place

SAMPLE_FOLDER = "sample-data"


class Runner(StrEnum):
    """How a step runs: in a process, or in a container."""

    PROCESS = "process"
    DOCKER = "docker"


def run(
    data: Annotated[str, typer.Option("--data", "-d", metavar="URI", help="Folder or URI of a data set.")] = "",
    sample: Annotated[bool, typer.Option("--sample", help="Run on a generated sample data set.")] = False,
    store: StoreOption = DEFAULT_STORE,
    model: ModelOption = None,
    weights: WeightsOption = "",
    version: Annotated[
        str, typer.Option("--version", metavar="NAME", help="Version to publish; by default made from the content.")
    ] = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    runner: Annotated[
        Runner, typer.Option("--runner", help="Run steps as processes, or in containers of Docker or Podman.")
    ] = Runner.PROCESS,
    images: ImagesOption = DEFAULT_IMAGES,
    runs: RunsOption = DEFAULT_RUNS,
    as_json: JsonOption = False,
) -> None:
    """Validate, pretrain, train, evaluate, export, quantize and publish a detector on this machine.

    It runs the compiled Kubeflow pipeline, each step in a process of its own.
    With --runner docker each step runs in the container of its image, as 'make images' has built it.
    Containers need a store in MinIO or S3.
    Run the same command again to continue an interrupted run.
    Reports are in runs/latest/index.html.

    [bold]Examples[/bold]

      kubeyolo run --sample --config examples/demo.yaml

      kubeyolo run --data data/bccd --config examples/demo.yaml

      kubeyolo run --data data/coco --model yolov5s-r7 --store minio://kubeyolo

      kubeyolo run --data data/bccd --model yolov5s-r7 --weights yolov5s.pt

      kubeyolo run --data data/bccd --store minio://kubeyolo --runner docker
    """
    if bool(data) == sample:
        raise InputError("give either --data with a data set, or --sample; see 'kubeyolo run --help'")
    form = training_form(data or str(runs / SAMPLE_FOLDER), store, model, version, config_file, sets, weights=weights)
    check_form(DETECTOR_TRAINING, form)
    if sample:
        generate_sample_dataset(runs / SAMPLE_FOLDER)
    configured = configure(DETECTOR_TRAINING, form)
    in_containers = runner is Runner.DOCKER
    local = LocalRun(
        name=configured.name,
        model=configured.config.model,
        store=configured.store,
        form=form,
        pipeline=bind_image_file(CompiledPipeline.named(), images) if in_containers else CompiledPipeline.named(),
        sources=(configured.data, configured.config.pretrain.data, *_weights(form, configured)),
        environment="" if in_containers else versions_digest(),
    )
    step_runner = ContainerRunner(local) if in_containers else None
    folder = RunFolder(runs, local.name)
    try:
        with stored_work(as_json):
            if not as_json:
                print(f"run {local.name}\nstore {local.store}", *configured.view().estimate, sep="\n", flush=True)
            outcome = run_local(local, runs, RunDisplay(quiet=as_json), step_runner)
    except (KubeyoloError, KeyboardInterrupt) as error:
        if not as_json and folder.index.is_file():
            print(f"report {folder.index}", flush=True)
        if isinstance(error, KeyboardInterrupt):
            raise InterruptedWork(interruption_words(error)) from error
        raise
    if as_json:
        print(json.dumps(outcome.summary, indent=1))
        return
    _print_outcome(outcome)


def _weights(form: Mapping[str, str], configured: ConfiguredRun) -> tuple[str, ...]:
    """Return the URIs that the field ``weights`` and the configuration name: a pointer, and its bundle."""
    found = configured.config.train.weights
    return (form.get("weights", ""), Place.of(found).uri) if found else ()


def _print_outcome(outcome: RunOutcome) -> None:
    """Print the metrics of float, ONNX and int8 side by side, and the paths of bundle and report."""
    console = wide_console()
    console.print(coco_table(outcome.folder.name, outcome.state.numbers()))
    findings = outcome.summary["dataset"]["findings"] or ()
    if findings:
        console.print(f"data    {len(findings)} kinds of findings; see the report of validate_dataset")
    for line in outcome.summary["warnings"]:
        console.print(f"warning {line}")
    console.print(f"time    {duration(sum(outcome.summary['seconds'].values()))}")
    console.print(f"bundle  {outcome.summary['bundle']}")
    console.print(f"report  {outcome.index}")

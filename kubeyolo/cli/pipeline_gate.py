"""``kubeyolo pipeline gate``: evaluates a model on Kubeflow, and fails if it is worse than a limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.cli.cluster import HostOption, commit_label
from kubeyolo.cli.judging import (
    BaselineOption,
    Evaluations,
    Gate,
    GivenBundleOption,
    JunitOption,
    LeastOption,
    MaxDropOption,
    MinApOption,
    ReportOption,
    SplitOption,
    SummaryOption,
    split_pairs,
)
from kubeyolo.cli.options import (
    DEFAULT_IMAGES,
    ConfigOption,
    ImagesOption,
    JsonOption,
    ResourcesOption,
    SetOption,
    resources_of,
    sets_of,
)
from kubeyolo.cli.tables import RunDisplay
from kubeyolo.compiled.images import bind_image_file
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import fill_form
from kubeyolo.errors import InputError, WorkError
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.follow import follow
from kubeyolo.kubeflow.result import evaluation_records
from kubeyolo.steps.configure import configure


def gate(
    bundle: GivenBundleOption,
    data: Annotated[str, typer.Option("--data", metavar="URI", help="Data set in the object store.")],
    store: Annotated[
        str, typer.Option("--store", envvar="KUBEYOLO_STORE", metavar="URI", help="Store, as minio://bucket/prefix.")
    ],
    baseline: BaselineOption = "",
    split: SplitOption = "",
    runtime: Annotated[str, typer.Option("--runtime", help="Runtime: mindspore, onnx, int8 or mindir.")] = "mindspore",
    min_ap: MinApOption = None,
    least: LeastOption = None,
    max_drop: MaxDropOption = None,
    junit: JunitOption = None,
    summary: SummaryOption = None,
    report: ReportOption = None,
    images: ImagesOption = DEFAULT_IMAGES,
    resources: ResourcesOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a bundle on Kubeflow and compare its COCO metrics with limits.

    Exit codes: 0 the model passes; 1 the model is worse than a limit; 2 the model could not be evaluated; 3 the run
    was terminated. The files are written in all these cases. 'kubeyolo gate' does the same without a cluster.

    [bold]Examples[/bold]

      kubeyolo pipeline gate --bundle minio://m/new --data minio://kubeyolo/data/bccd --min-ap 0.5

      kubeyolo pipeline gate --bundle minio://m/new --baseline minio://m/old --data minio://kubeyolo/data/bccd
    """
    fields = {"bundle": bundle, "baseline": baseline, "data": data, "store": store, "runtime": runtime}
    pairs = (*sets_of(sets), *split_pairs(split))

    def evaluate() -> Evaluations:
        compiled = CompiledPipeline.named(MODEL_EVALUATION).bind_resources(resources_of(resources))
        return _evaluate(fields, compiled, images, config_file, pairs, host, as_json)

    Gate(
        links={name: fields[name] for name in ("bundle", "baseline", "data") if fields[name]},
        min_ap=min_ap,
        least=least or (),
        max_drop=max_drop,
        junit=junit,
        summary=summary,
        report=report,
        config_file=config_file,
        sets=pairs,
        as_json=as_json,
    ).judge(evaluate)


def _evaluate(
    fields: Mapping[str, str],
    pipeline: CompiledPipeline,
    images: Path,
    config_file: Path | None,
    sets: tuple[str, ...],
    host: str,
    quiet: bool,
) -> Evaluations:
    """Run the evaluation pipeline, and return the records of its evaluations and the name of the run."""
    form = fill_form(list(pipeline.fields), None, config_file, sets, **fields)
    configured = configure(MODEL_EVALUATION, form, is_remote=True)
    # A pointer may be moved before the run starts: the bundle that it names now is the baseline.
    form |= {name: getattr(configured, name).reference for name in ("bundle", "baseline") if getattr(configured, name)}
    bound = bind_image_file(pipeline, images)
    kubeflow = Kubeflow(host)
    version = kubeflow.pipeline_version(MODEL_EVALUATION, bound)
    name = f"{configured.name}-{commit_label()}"
    run = kubeflow.submit(name, kubeflow.make_experiment(MODEL_EVALUATION), version, form)
    if not quiet:
        print(f"run {run.name}\nid {run.id}", flush=True)
    try:
        follow(kubeflow, run.id, RunDisplay(quiet))
    except WorkError as error:
        raise InputError(f"could not be evaluated: {error}") from error
    records = evaluation_records({task: given.index for task, given in configured.settings.items() if given.index})
    return Evaluations(records["evaluate"], records.get("evaluate_baseline"), {"run": run.name})

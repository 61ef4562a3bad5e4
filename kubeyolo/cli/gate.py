"""``kubeyolo gate``: evaluates a model on this machine, and fails if it is worse than a limit."""

from __future__ import annotations

from typing import Annotated

import typer

from kubeyolo.catalogue import MODEL_EVALUATION
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
from kubeyolo.cli.options import DEFAULT_STORE, ConfigOption, JsonOption, SetOption, StoreOption, sets_of
from kubeyolo.cli.streams import stored_work
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import fill_form
from kubeyolo.errors import InputError, check_known

RUNTIMES = ("onnx", "int8", "openvino", "openvino-int8")
"""Runtimes that need no MindSpore."""


def gate(
    bundle: GivenBundleOption,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="URI", help="Folder or URI of a data set, stored by kubeyolo or not.")
    ],
    store: StoreOption = DEFAULT_STORE,
    baseline: BaselineOption = "",
    split: SplitOption = "",
    runtime: Annotated[str, typer.Option("--runtime", help=f"Runtime: {', '.join(RUNTIMES)}.")] = "onnx",
    min_ap: MinApOption = None,
    least: LeastOption = None,
    max_drop: MaxDropOption = None,
    junit: JunitOption = None,
    summary: SummaryOption = None,
    report: ReportOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate the ONNX or int8 network of a bundle on this machine and compare its COCO metrics with limits.

    Neither a cluster nor MindSpore is needed; the image kubeyolo-evaluate-onnx has all packages of the command. A
    folder of annotated images is validated and stored first. After an interruption run the same command again: it uses
    the evaluations that are already stored.

    Exit codes: 0 the model passes; 1 the model is worse than a limit; 2 the model could not be evaluated. The files are
    written in all these cases.

    [bold]Examples[/bold]

      kubeyolo gate --bundle store/models/yolov5n-r7/1.1 --data data/bccd --min-ap 0.5

      kubeyolo gate --bundle minio://m/new --baseline minio://m/old --data minio://kubeyolo/data/bccd --runtime int8
      --max-drop 0.5 --junit gate.xml --summary gate.md --report gate.html
    """
    links = {"bundle": bundle, "baseline": baseline, "data": data}
    pairs = (*sets_of(sets), *split_pairs(split))

    def evaluate() -> Evaluations:
        # Imported here: help does not need the steps.
        from kubeyolo.steps.model_evaluation import evaluate_models

        if runtime in ("mindspore", "mindir"):
            raise InputError(
                f"--runtime {runtime} needs MindSpore: use 'kubeyolo pipeline gate', or --runtime onnx or int8 here"
            )
        check_known("runtime", runtime, RUNTIMES)
        fields = list(CompiledPipeline.named(MODEL_EVALUATION).fields)
        form = fill_form(fields, None, config_file, pairs, **links, store=store, runtime=runtime)
        with stored_work(as_json):
            found = evaluate_models(form)
        compared = found.baseline.record if found.baseline else None
        return Evaluations(found.bundle.record, compared, {"dataset": found.dataset.reference})

    Gate(
        links={name: uri for name, uri in links.items() if uri},
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

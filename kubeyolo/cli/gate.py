"""``kubeyolo pipeline gate``: evaluates a model on Kubeflow, and fails if it is worse than a limit."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from kubeyolo.catalogue import MODEL_EVALUATION
from kubeyolo.cli.cluster import HostOption, commit_label
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
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, WorkError, one_line, split_pair
from kubeyolo.evaluation.limits import Numbers, Verdict, check_numbers
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.follow import TerminatedRun, follow
from kubeyolo.kubeflow.gate import BothResamples, junit_xml, markdown_error, markdown_summary
from kubeyolo.kubeflow.result import evaluation_numbers, evaluation_resamples
from kubeyolo.steps.configure import configure

FAILED = 1
_NAME = "kubeyolo gate"


def gate(
    bundle: Annotated[str, typer.Option("--bundle", metavar="URI", help="The bundle to evaluate.")],
    data: Annotated[str, typer.Option("--data", metavar="URI", help="Data set in the object store.")],
    store: Annotated[
        str, typer.Option("--store", envvar="KUBEYOLO_STORE", metavar="URI", help="Store, as minio://bucket/prefix.")
    ],
    baseline: Annotated[
        str,
        typer.Option("--baseline", metavar="URI", help="Bundle or latest.json to compare with, on the same images."),
    ] = "",
    min_ap: Annotated[float | None, typer.Option("--min-ap", min=0, max=1, help="Lower limit of AP, 0 to 1.")] = None,
    least: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="KEY=VALUE", help="Lower limit of a COCO metric, such as AP50=0.8."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Largest loss of AP against the baseline, in points (AP x 100); by default 1."),
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="Runtime: mindspore, onnx, int8 or mindir.")] = "mindspore",
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Where to write JUnit XML.")] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="File to append a Markdown summary to.")
    ] = None,
    images: ImagesOption = DEFAULT_IMAGES,
    resources: ResourcesOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a bundle on Kubeflow and compare its COCO metrics with limits.

    Exit codes: 0 the model passes; 1 the model is worse than a limit; 2 the model could not be evaluated; 3 the run
    was terminated. The reports are written in all these cases.

    [bold]Examples[/bold]

      kubeyolo pipeline gate --bundle minio://m/new --data minio://kubeyolo/data/bccd --min-ap 0.5

      kubeyolo pipeline gate --bundle minio://m/new --baseline minio://m/old --data minio://kubeyolo/data/bccd
    """
    fields = {"bundle": bundle, "baseline": baseline, "data": data, "store": store, "runtime": runtime}
    links = {name: fields[name] for name in ("bundle", "baseline", "data") if fields[name]}
    reports = _Reports(junit, summary, links)
    reports.begin()
    try:
        limits = _limits(min_ap, least or [])
        drop = math.inf if not baseline and max_drop is None else 1.0 if max_drop is None else max_drop
        judge = load_config(None, config_file, sets_of(sets)).evaluate.judge
        check_numbers({}, {} if baseline else None, limits, drop, judge)  # refuses unknown or missing limits
        compiled = CompiledPipeline.named(MODEL_EVALUATION).bind_resources(resources_of(resources))
        result = _evaluate(fields, compiled, images, config_file, sets_of(sets), host, as_json)
        numbers, compared = result["evaluate"], result.get("evaluate_baseline")
        found = result.pop("resamples", {})
        resamples = (found.get("evaluate"), found.get("evaluate_baseline"))
        verdict = check_numbers(numbers, compared, limits, drop, judge, resamples)
    except BaseException as error:
        reports.failed(error)
        if isinstance(error, Exception) and not isinstance(error, InputError | InterruptedWork | TerminatedRun):
            # A failed store, or a bug, says nothing about the quality of the model.
            raise InputError(f"the model could not be evaluated: {one_line(error)}") from error
        raise
    reports.checked(verdict, numbers, compared, result["run"], resamples)
    if as_json:
        checks = [{"check": check.name, "passed": check.passed, "message": check.message} for check in verdict.checks]
        intervals = {task: each.intervals() for task, each in found.items()}
        print(json.dumps({"passed": verdict.passed, "checks": checks, **result, "intervals": intervals}, indent=1))
    else:
        for check in verdict.checks:
            print(f"{'✓' if check.passed else '✗'} {check.name}: {check.message}")
    if not verdict.passed:
        raise typer.Exit(FAILED)


@dataclass
class _Reports:
    """The files that a CI reads: the result of the gate, or the reason why there is no result."""

    junit: Path | None
    summary: Path | None
    links: Mapping[str, str]
    start: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Refuse files that cannot be written, and replace the results of an earlier gate.

        If the command is killed, the JUnit file reports that the evaluation has not ended.
        """
        self._write(junit_xml(_NAME, Verdict(), 0.0, "the evaluation has not ended"), "")

    def checked(
        self, verdict: Verdict, numbers: Numbers, baseline: Numbers | None, run: str, resamples: BothResamples
    ) -> None:
        """Write the checked limits, the metrics and their intervals."""
        self._write(
            junit_xml(_NAME, verdict, self._seconds, "", numbers, baseline, resamples),
            markdown_summary(_NAME, verdict, numbers, baseline, {**self.links, "run": run}, resamples),
        )

    def failed(self, error: BaseException) -> None:
        """Write why no limit could be checked."""
        message = one_line(error) if isinstance(error, KubeyoloError) else ""
        why = message or ("interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}")
        # The disk may have become full since: report the original failure.
        with suppress(InputError):
            self._write(junit_xml(_NAME, Verdict(), self._seconds, why), markdown_error(_NAME, why, self.links))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.start

    def _write(self, junit: str, summary: str) -> None:
        """Replace the JUnit file, and append to the summary: a CI collects summaries of several tools in one file."""
        for path, mode, text in ((self.junit, "w", junit), (self.summary, "a", summary)):
            try:
                if path is not None:
                    with path.open(mode, encoding="utf-8") as file:
                        file.write(text)
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _evaluate(
    fields: Mapping[str, str],
    pipeline: CompiledPipeline,
    images: Path,
    config_file: Path | None,
    sets: tuple[str, ...],
    host: str,
    quiet: bool,
) -> dict[str, Any]:
    """Run the evaluation pipeline and return the COCO metrics by task, and the name of the run."""
    load_config(None, config_file, sets)
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
    indexes = {task: given.index for task, given in configured.settings.items() if given.index}
    return {"run": run.name, **evaluation_numbers(indexes), "resamples": evaluation_resamples(indexes)}


def _limits(min_ap: float | None, pairs: Sequence[str]) -> dict[str, float]:
    limits = {} if min_ap is None else {"AP": min_ap}
    for pair in pairs:
        key, text = split_pair(pair, "--min", "AP50=0.8")
        try:
            limits[key] = float(text)
        except ValueError:
            limits[key] = math.nan
        if not 0 <= limits[key] <= 1:
            raise InputError(f"--min {pair!r}: expected a COCO metric and a value from 0 to 1, such as AP50=0.8")
    return limits

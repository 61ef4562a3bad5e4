"""``kubeyolo pipeline gate``: a model evaluated on Kubeflow, and refused when it is worse than it must be."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubeyolo.cli.cluster import HostOption, commit_label
from kubeyolo.cli.options import DEFAULT_IMAGES, ConfigOption, ImagesOption, JsonOption, SetOption, sets_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kubeyolo.evaluation.limits import Check, Numbers

FAILED = 1
_NAME = "kubeyolo gate"


def gate(
    bundle: Annotated[str, typer.Option("--bundle", metavar="URI", help="The bundle that is to pass.")],
    data: Annotated[str, typer.Option("--data", metavar="URI", help="Data set in the object store.")],
    store: Annotated[
        str, typer.Option("--store", envvar="KUBEYOLO_STORE", metavar="URI", help="Store, as minio://bucket/prefix.")
    ],
    baseline: Annotated[
        str,
        typer.Option("--baseline", metavar="URI", help="Bundle to compare with on the same images, or latest.json."),
    ] = "",
    min_ap: Annotated[float | None, typer.Option("--min-ap", min=0, max=1, help="Least AP, 0 to 1.")] = None,
    least: Annotated[
        list[str] | None, typer.Option("--min", metavar="KEY=VALUE", help="Least value of a COCO number: AP50=0.8.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", help="Most points of AP (AP x 100) lost against the baseline; 1 with a baseline."),
    ] = None,
    runtime: Annotated[str, typer.Option("--runtime", help="mindspore, onnx, int8 or mindir.")] = "mindspore",
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Where to write JUnit XML.")] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="File that a Markdown summary is appended to.")
    ] = None,
    images: ImagesOption = DEFAULT_IMAGES,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """Evaluate a bundle on Kubeflow and compare its COCO numbers with limits.

    Exit codes: 0 it passes; 1 it is worse than a limit; 2 it could not be evaluated; 3 the run was terminated. The
    reports say so in each of these cases.

    [bold]Examples[/bold]

      kubeyolo pipeline gate --bundle minio://m/new --data minio://kubeyolo/data/bccd --min-ap 0.5

      kubeyolo pipeline gate --bundle minio://m/new --baseline minio://m/old --data minio://kubeyolo/data/bccd
    """
    import json

    from kubeyolo.errors import InputError, InterruptedWork, one_line
    from kubeyolo.evaluation.limits import check_numbers
    from kubeyolo.kubeflow.follow import TerminatedRun

    links = {"bundle": bundle, "baseline": baseline, "data": data}
    reports = _Reports(junit, summary, {name: link for name, link in links.items() if link})
    reports.begin()
    try:
        limits = _limits(min_ap, least or [])
        drop = math.inf if not baseline and max_drop is None else 1.0 if max_drop is None else max_drop
        check_numbers({}, {} if baseline else None, limits, drop)  # that the limits make sense
        found = _evaluate(bundle, data, store, baseline, runtime, images, config_file, sets_of(sets), host, as_json)
        numbers, compared = found["evaluate"], found.get("evaluate_baseline")
        checks = check_numbers(numbers, compared, limits, drop)
    except BaseException as error:
        reports.failed(error)
        if isinstance(error, Exception) and not isinstance(error, InputError | InterruptedWork | TerminatedRun):
            # Neither a store that fails nor a fault of the program says anything of the model.
            raise InputError(f"the model could not be evaluated: {one_line(error)}") from error
        raise
    reports.checked(checks, numbers, compared, found["run"])
    if as_json:
        told = [{"check": check.name, "passed": check.passed, "message": check.message} for check in checks]
        print(json.dumps({"passed": _passed(checks), "checks": told, **found}, indent=1))
    else:
        for check in checks:
            print(f"{'✓' if check.passed else '✗'} {check.name}: {check.message}")
    if not _passed(checks):
        raise typer.Exit(FAILED)


@dataclass
class _Reports:
    """The files that a CI reads: whatever becomes of the evaluation, they say it."""

    junit: Path | None
    summary: Path | None
    links: Mapping[str, str]
    begun: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        """Refuse files that cannot be written, and replace the results of an earlier gate.

        Whoever kills the command leaves a file that says so.
        """
        from kubeyolo.kubeflow.gate import junit_xml

        self._write(junit_xml(_NAME, [], 0.0, "the evaluation has not ended"), "")

    def checked(self, checks: Sequence[Check], numbers: Numbers, baseline: Numbers | None, run: str) -> None:
        """Write what was checked."""
        from kubeyolo.kubeflow.gate import junit_xml, markdown_summary

        self._write(
            junit_xml(_NAME, checks, self._seconds),
            markdown_summary(_NAME, checks, numbers, baseline, {**self.links, "run": run}),
        )

    def failed(self, error: BaseException) -> None:
        """Write why nothing could be checked."""
        from kubeyolo.errors import InputError, KubeyoloError, one_line
        from kubeyolo.kubeflow.gate import junit_xml, markdown_error

        said = one_line(error) if isinstance(error, KubeyoloError) else ""
        why = said or ("interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}")
        # A disk that is full by now is not why it failed.
        with suppress(InputError):
            self._write(junit_xml(_NAME, [], self._seconds, why), markdown_error(_NAME, why, self.links))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self.begun

    def _write(self, junit: str, summary: str) -> None:
        """Replace the one file, and append to the other: a CI gathers the summaries of several tools in one."""
        from kubeyolo.errors import InputError

        for path, mode, text in ((self.junit, "w", junit), (self.summary, "a", summary)):
            try:
                if path is not None:
                    with path.open(mode, encoding="utf-8") as file:
                        file.write(text)
            except OSError as error:
                raise InputError(f"{path}: cannot be written: {error.strerror}") from error


def _evaluate(
    bundle: str,
    data: str,
    store: str,
    baseline: str,
    runtime: str,
    images: Path,
    config_file: Path | None,
    sets: tuple[str, ...],
    host: str,
    quiet: bool,
) -> dict[str, Any]:
    """Run the evaluation pipeline and return the COCO numbers by place, and the name of the run."""
    from kubeyolo.catalogue import MODEL_EVALUATION
    from kubeyolo.cli.display import RunDisplay, Silent
    from kubeyolo.compiled.images import bind_image_file
    from kubeyolo.compiled.read import fields_of, pipeline_text
    from kubeyolo.config.form import fill_form
    from kubeyolo.config.load import load_config
    from kubeyolo.errors import InputError, WorkError
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.kubeflow.evaluation import evaluation_numbers
    from kubeyolo.kubeflow.follow import follow
    from kubeyolo.steps.configure import configure

    load_config(None, config_file, sets)
    places = {"bundle": bundle, "data": data, "store": store, "baseline": baseline, "runtime": runtime}
    compiled = pipeline_text(MODEL_EVALUATION)
    form = fill_form(list(fields_of(compiled)), None, config_file, sets, **places)
    configured = configure(MODEL_EVALUATION, form, is_remote=True)
    # A pointer may be moved before the run begins: compared is what it names now.
    form |= {"bundle": configured.bundle} | ({"baseline": configured.baseline} if configured.baseline else {})
    text = bind_image_file(compiled, images)
    kubeflow = Kubeflow(host)
    version = kubeflow.pipeline_version(MODEL_EVALUATION, text)
    name = f"{configured.name}-{commit_label()}"
    run = kubeflow.submit(name, kubeflow.make_experiment(MODEL_EVALUATION), version, form)
    if not quiet:
        print(f"run {run.name}\nid {run.id}", flush=True)
    try:
        follow(kubeflow, run.id, Silent() if quiet else RunDisplay())
    except WorkError as error:
        raise InputError(f"could not be evaluated: {error}") from error
    indexes = {task: given.index for task, given in configured.settings.items() if given.index}
    return {"run": run.name, **evaluation_numbers(indexes)}


def _limits(min_ap: float | None, pairs: Sequence[str]) -> dict[str, float]:
    from kubeyolo.errors import InputError, split_pair

    limits = {} if min_ap is None else {"AP": min_ap}
    for pair in pairs:
        key, text = split_pair(pair, "--min", "AP50=0.8")
        try:
            limits[key] = float(text)
        except ValueError:
            limits[key] = math.nan
        if not 0 <= limits[key] <= 1:
            raise InputError(f"--min {pair!r}: expected a COCO number and a value from 0 to 1, such as AP50=0.8")
    return limits


def _passed(checks: Sequence[Check]) -> bool:
    return all(check.passed for check in checks)

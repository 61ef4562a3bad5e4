"""``kubeyolo pipeline submit | status | logs | cancel | list``: runs on Kubeflow."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kubeyolo.cli.options import (
    DEFAULT_IMAGES,
    ConfigOption,
    FieldOption,
    ImagesOption,
    JsonOption,
    ModelOption,
    SetOption,
)

if TYPE_CHECKING:
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.kubeflow.remote import RemoteRun, RemoteStep
    from kubeyolo.kubeflow.result import RemoteResult

HostOption = Annotated[
    str, typer.Option("--host", envvar="KUBEYOLO_KFP_HOST", metavar="URL", help="Address of Kubeflow's API.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id or name of a run; by default the newest one.")]
LATEST = "latest"

_COMMIT_VARIABLES = ("KUBEYOLO_COMMIT", "GITHUB_SHA", "CI_COMMIT_SHA")
_COMMIT_DIGITS = 8


def submit(
    data: Annotated[str, typer.Option("--data", metavar="URI", help="Data set in the object store.")],
    store: Annotated[
        str,
        typer.Option(
            "--store",
            envvar="KUBEYOLO_STORE",
            metavar="URI",
            help="Store, as minio://bucket/prefix; without it that of the cluster's ConfigMap.",
        ),
    ] = "",
    model: ModelOption = None,
    version: Annotated[
        str, typer.Option("--version", metavar="NAME", help="Version to publish under; by default from the content.")
    ] = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    params: FieldOption = None,
    images: ImagesOption = DEFAULT_IMAGES,
    experiment: Annotated[
        str, typer.Option("--experiment", metavar="NAME", help="Experiment; by default <model>-<data set>.")
    ] = "",
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the run; by default made here.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, and show the steps.")] = False,
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """Submit a run of the detector training pipeline to Kubeflow.

    Exit codes: 0 submitted, or with --wait succeeded; 1 failed; 2 could not be submitted; 3 terminated.

    [bold]Examples[/bold]

      kubeyolo pipeline submit --data minio://kubeyolo/data/bccd --store minio://kubeyolo --wait

      kubeyolo pipeline submit --data minio://kubeyolo/data/bccd --store minio://kubeyolo --param max_epoch=100
    """
    from kubeyolo.catalogue import DETECTOR_TRAINING
    from kubeyolo.cli.forms import training_form
    from kubeyolo.compiled.images import bind_image_file
    from kubeyolo.compiled.read import pipeline_text
    from kubeyolo.errors import InputError, WorkError
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.steps.checked_form import check_form
    from kubeyolo.steps.configure import configure
    from kubeyolo.steps.naming import dataset_label

    form = training_form(data, store, model, version, config_file, sets, params)
    checked = check_form(DETECTOR_TRAINING, form, is_remote=True)
    try:
        # Without a store that is known here, the first step on the cluster makes the same checks.
        configured = configure(DETECTOR_TRAINING, form, is_remote=True) if checked.store else None
    except WorkError as error:
        raise InputError(f"could not be submitted: {error}") from error
    text = bind_image_file(pipeline_text(), images)
    kubeflow = Kubeflow(host)
    versions = kubeflow.pipeline_version(DETECTOR_TRAINING, text)
    label = f"{checked.resolved.config.model}-{dataset_label(data)}"
    group = kubeflow.make_experiment(experiment or label)
    run_name = name or f"{configured.name if configured else label}-{commit_label()}"
    run = kubeflow.submit(run_name, group, versions, form)
    _print_submitted(kubeflow, run, as_json and not wait)
    if wait:
        _wait(kubeflow, run, as_json)


def status(
    run: RunArgument = LATEST,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, and show the steps.")] = False,
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show a run on Kubeflow and its steps.

    Exit codes: 0 under way or succeeded, 1 failed, 2 not known, 3 terminated.

    [bold]Examples[/bold]

      kubeyolo pipeline status

      kubeyolo pipeline status --wait

      kubeyolo pipeline status 3f0c9a1b-22d4-4c55-9a0e-0a1b2c3d4e5f --json
    """
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.kubeflow.follow import check_end

    kubeflow = Kubeflow(host)
    found = kubeflow.find(run)
    if wait and not found.is_over:
        _wait(kubeflow, found, as_json)
        return
    print_run(found, as_json)
    if found.is_over:
        check_end(kubeflow, found)


def logs(
    run: RunArgument = LATEST,
    step: Annotated[str, typer.Option("--step", metavar="NAME", help="One step; by default all of them.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="The lines of Argo and of Kubeflow between those of the steps too.")
    ] = False,
    host: HostOption = "",
) -> None:
    """Print what the steps of a run on Kubeflow have printed, as far as they have begun.

    [bold]Examples[/bold]

      kubeyolo pipeline logs

      kubeyolo pipeline logs yolov5n-r7-bccd-1f3a9c07-0a1b2c3d --step train
    """
    from kubeyolo.errors import InputError, suggest
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.kubeflow.step_log import own_lines

    kubeflow = Kubeflow(host)
    found = kubeflow.find(run)
    begun = [one for one in found.steps if one.node and one.state != "SKIPPED"]
    names = [one.name for one in begun]
    if step and step not in names:
        raise InputError(f"run {found.name}: no step {step!r} has begun{suggest(step, names)}")
    for one in begun:
        if step not in ("", one.name):
            continue
        print(f"=== {one.name} {_state_of(one)}")
        if one.is_cached:
            print("(from the cache: it has not run)")
            continue
        lines = kubeflow.log(found.id, one).splitlines() or ["(nothing of its log is kept)"]
        print(*(lines if everything else own_lines(lines)), sep="\n")


def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id or name of a run.")], host: HostOption = ""
) -> None:
    """Terminate a run on Kubeflow; nothing happens to one that has ended.

    The run has to be named: the newest one may be somebody else's.

    [bold]Examples[/bold]

      kubeyolo pipeline cancel yolov5n-r7-bccd-1f3a9c07-0a1b2c3d
    """
    from kubeyolo.kubeflow.client import Kubeflow

    kubeflow = Kubeflow(host)
    found = kubeflow.find(run)
    if found.is_over:
        print(f"{found.name} has ended: {found.state.lower()}")
        return
    kubeflow.terminate(found.id)
    print(f"{found.name} ({found.id}) is being terminated")


def list_runs(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 20,
    experiment: Annotated[str, typer.Option("--experiment", metavar="NAME", help="Of one experiment alone.")] = "",
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """List runs on Kubeflow, newest first.

    [bold]Examples[/bold]

      kubeyolo pipeline list

      kubeyolo pipeline list --experiment yolov5n-r7-bccd -n 5 --json
    """
    import json
    from itertools import islice

    from rich import box
    from rich.table import Table

    from kubeyolo.cli.tables import wide_console
    from kubeyolo.kubeflow.client import Kubeflow

    kubeflow = Kubeflow(host)
    found = list(islice(kubeflow.runs(kubeflow.experiment(experiment) if experiment else ""), count))
    if as_json:
        print(json.dumps([_facts(run) for run in found], indent=1))
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("run", "state", "submitted", "id"):
        table.add_column(column, no_wrap=True)
    for run in found:
        table.add_row(run.name, run.state.lower(), _local(run.created), run.id)
    wide_console().print(table)


def commit_label() -> str:
    """Return the short commit of what is submitted from: of a CI's environment, of git here, or of the library."""
    from kubeyolo.source import results_source

    commit = next((os.environ[name] for name in _COMMIT_VARIABLES if os.environ.get(name)), "")
    if not commit:
        command = ["git", "rev-parse", "HEAD"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            commit = results_source()
    return commit[:_COMMIT_DIGITS]


def _wait(kubeflow: Kubeflow, run: RemoteRun, as_json: bool) -> None:
    from kubeyolo.cli.display import RunDisplay, Silent
    from kubeyolo.kubeflow.follow import follow

    ended = follow(kubeflow, run.id, Silent() if as_json else RunDisplay())
    print_run(ended, as_json)


def _print_submitted(kubeflow: Kubeflow, run: RemoteRun, as_json: bool) -> None:
    import json
    import sys

    address = f"{kubeflow.host}/#/runs/details/{run.id}"
    if as_json:
        print(json.dumps({"id": run.id, "name": run.name, "address": address}, indent=1))
    else:
        print(f"run {run.name}\nid {run.id}\npage {address}", file=sys.stdout, flush=True)


def print_run(run: RemoteRun, as_json: bool = False) -> None:
    """Print the steps of a run, and what it has made."""
    import json
    from dataclasses import asdict

    from rich import box
    from rich.table import Table

    from kubeyolo.cli.tables import wide_console
    from kubeyolo.kubeflow.follow import seconds_of
    from kubeyolo.kubeflow.result import remote_result
    from kubeyolo.report.formats import duration

    if as_json:
        result = remote_result(run)
        facts = {"arguments": dict(run.arguments), "result": asdict(result) if result else None}
        print(json.dumps(_facts(run) | facts, indent=1))
        return
    table = Table(title=f"{run.name} {run.state.lower()}", title_justify="left", box=box.SIMPLE, pad_edge=False)
    for column in ("step", "state", "started", "time"):
        table.add_column(column, no_wrap=True)
    for step in run.steps:
        time = duration(seconds_of(step)) if step.started and not step.is_cached else ""
        table.add_row(step.name, _state_of(step), _local(step.started), time)
    if run.steps:
        wide_console().print(table)
    else:
        print(f"{run.name} {run.state.lower()}, before any step")
    # The store is asked last: it may not answer.
    result = remote_result(run)
    if result is not None:
        _print_result(result)


def _print_result(result: RemoteResult) -> None:
    from kubeyolo.cli.tables import coco_table, wide_console

    console = wide_console()
    if result.numbers:
        console.print(coco_table("", result.numbers))
    if result.note:
        console.print(result.note)
    if result.bundle:
        console.print(f"bundle  {result.bundle}")
    if result.current:
        console.print(f"current  {result.current}")


def _state_of(step: RemoteStep) -> str:
    return "cached" if step.is_cached else step.state.lower()


def _facts(run: RemoteRun) -> dict[str, Any]:
    return {
        "id": run.id,
        "name": run.name,
        "state": run.state,
        "created": _clock(run.created),
        "ended": _clock(run.ended),
        "message": run.message,
        "steps": {
            step.name: {"state": step.state, "cached": step.is_cached, "message": step.message} for step in run.steps
        },
    }


def _local(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _clock(moment: datetime | None) -> str:
    return moment.astimezone().isoformat(sep=" ", timespec="seconds") if moment else ""

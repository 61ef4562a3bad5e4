"""``kubeyolo pipeline status | logs | cancel | list``: runs on Kubeflow."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer

from kubeyolo.cli.options import JsonOption
from kubeyolo.cli.tables import RunDisplay, coco_table, new_table, wide_console
from kubeyolo.errors import InputError, suggest
from kubeyolo.formats import duration
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.follow import check_end, follow, own_lines, seconds_of
from kubeyolo.kubeflow.remote import RemoteRun, RemoteStep
from kubeyolo.kubeflow.result import RemoteResult, remote_result
from kubeyolo.source import results_source

HostOption = Annotated[
    str, typer.Option("--host", envvar="KUBEYOLO_KFP_HOST", metavar="URL", help="Address of Kubeflow's API.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Id or name of a run; by default the newest one.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait for the run to end, and show the steps.")]
LATEST = "latest"

_COMMIT_VARIABLES = ("KUBEYOLO_COMMIT", "GITHUB_SHA", "CI_COMMIT_SHA")
_COMMIT_DIGITS = 8


def status(
    run: RunArgument = LATEST, wait: WaitOption = False, host: HostOption = "", as_json: JsonOption = False
) -> None:
    """Show a run on Kubeflow and its steps.

    Exit codes: 0 running or succeeded, 1 failed, 2 no such run, 3 terminated.

    [bold]Examples[/bold]

      kubeyolo pipeline status

      kubeyolo pipeline status --wait

      kubeyolo pipeline status 3f0c9a1b-22d4-4c55-9a0e-0a1b2c3d4e5f --json
    """
    kubeflow = Kubeflow(host)
    remote = kubeflow.find(run)
    if wait and not remote.is_over:
        wait_for(kubeflow, remote, as_json)
        return
    _print_run(remote, as_json)
    if remote.is_over:
        check_end(kubeflow, remote)


def logs(
    run: RunArgument = LATEST,
    step: Annotated[str, typer.Option("--step", metavar="NAME", help="Only this step; by default all steps.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also print log lines from Argo and Kubeflow.")] = False,
    host: HostOption = "",
) -> None:
    """Print the logs of all started steps of a run on Kubeflow.

    [bold]Examples[/bold]

      kubeyolo pipeline logs

      kubeyolo pipeline logs yolov5n-r7-bccd-1f3a9c07-0a1b2c3d --step train
    """
    kubeflow = Kubeflow(host)
    remote = kubeflow.find(run)
    started = [each for each in remote.steps if each.node and each.state != "SKIPPED"]
    names = [each.name for each in started]
    if step and step not in names:
        raise InputError(f"run {remote.name}: no step {step!r} has started{suggest(step, names)}")
    for each in started:
        if step not in ("", each.name):
            continue
        print(f"=== {each.name} {_state_of(each)}")
        if each.is_cached:
            print("(result from the cache, the step did not run)")
            continue
        lines = kubeflow.log(remote.id, each).splitlines() or ["(no stored log)"]
        print(*(lines if everything else own_lines(lines)), sep="\n")


def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id or name of a run.")], host: HostOption = ""
) -> None:
    """Terminate a run on Kubeflow; a run that has ended is not changed.

    RUN is required: the newest run may be somebody else's.

    [bold]Examples[/bold]

      kubeyolo pipeline cancel yolov5n-r7-bccd-1f3a9c07-0a1b2c3d
    """
    kubeflow = Kubeflow(host)
    remote = kubeflow.find(run)
    if remote.is_over:
        print(f"{remote.name} has ended: {remote.state.lower()}")
        return
    kubeflow.terminate(remote.id)
    print(f"{remote.name} ({remote.id}) is being terminated")


def list_runs(
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="Number of runs.")] = 20,
    experiment: Annotated[str, typer.Option("--experiment", metavar="NAME", help="Only runs of this experiment.")] = "",
    host: HostOption = "",
    as_json: JsonOption = False,
) -> None:
    """List runs on Kubeflow, newest first.

    [bold]Examples[/bold]

      kubeyolo pipeline list

      kubeyolo pipeline list --experiment yolov5n-r7-bccd -n 5 --json
    """
    kubeflow = Kubeflow(host)
    runs = list(islice(kubeflow.runs(kubeflow.experiment(experiment) if experiment else ""), count))
    if as_json:
        print(json.dumps([_facts(run) for run in runs], indent=1))
        return
    table = new_table("run", "state", "submitted", "id")
    for run in runs:
        table.add_row(run.name, run.state.lower(), _local(run.created), run.id)
    wide_console().print(table)


def commit_label() -> str:
    """Return a short commit from the CI's environment or from git; if there is none, the digest of the library."""
    commit = next((os.environ[name] for name in _COMMIT_VARIABLES if os.environ.get(name)), "")
    if not commit:
        command = ["git", "rev-parse", "HEAD"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            commit = results_source()
    return commit[:_COMMIT_DIGITS]


def wait_for(kubeflow: Kubeflow, run: RemoteRun, as_json: bool = False) -> None:
    """Wait for the end of a run, and print its steps.

    Raises:
        WorkError: The run has failed.
        TerminatedRun: The run was terminated.
    """
    _print_run(follow(kubeflow, run.id, RunDisplay(quiet=as_json)), as_json)


def _print_run(run: RemoteRun, as_json: bool) -> None:
    """Print the steps of a run and its results."""
    if as_json:
        result = remote_result(run)
        facts = {"arguments": dict(run.arguments), "result": asdict(result) if result else None}
        print(json.dumps(_facts(run) | facts, indent=1))
        return
    table = new_table("step", "state", "started", "time", title=f"{run.name} {run.state.lower()}")
    for step in run.steps:
        time = duration(seconds_of(step)) if step.started and not step.is_cached else ""
        table.add_row(step.name, _state_of(step), _local(step.started), time)
    if run.steps:
        wide_console().print(table)
    else:
        print(f"{run.name} {run.state.lower()}; no step has started")
    # The store is read last: it may be unreachable.
    result = remote_result(run)
    if result is not None:
        _print_result(result)


def _print_result(result: RemoteResult) -> None:
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

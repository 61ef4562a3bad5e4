"""``kubeyolo pipeline schedule``: recurring runs on Kubeflow, defined by files in git."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from kubeyolo.cli.cluster import HostOption, WaitOption, commit_label, wait_for
from kubeyolo.cli.options import DEFAULT_IMAGES, ImagesOption, JsonOption
from kubeyolo.cli.tables import new_table, wide_console
from kubeyolo.compiled.images import bind_image_file
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, suggest
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.schedules import (
    DEFAULT_OWNER,
    Change,
    Wanted,
    check_owner,
    plan,
    read_schedules,
    wanted_schedule,
)
from kubeyolo.steps.checked_form import check_form

DEFAULT_FOLDER = Path("schedules")
FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE...", help="Schedule files, or folders of them; by default schedules."),
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")]
OwnerOption = Annotated[
    str,
    typer.Option(
        "--owner",
        envvar="KUBEYOLO_SCHEDULE_OWNER",
        metavar="NAME",
        help="Owner of the files, by default 'default'; use one name for each repository that uses this Kubeflow.",
    ),
]


def apply(
    files: FilesArgument = None,
    owner: OwnerOption = "",
    images: ImagesOption = DEFAULT_IMAGES,
    host: HostOption = "",
) -> None:
    """Create, update, enable and disable recurring runs so that they match the files.

    If a folder is given, it must contain all files of the owner: the owner's schedules without a file are disabled. If
    single files are given, no schedule is disabled. Recurring runs that belong to other owners, or were created by
    hand, are not changed.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule apply

      kubeyolo pipeline schedule apply schedules --owner team/cells --images images.yaml

      kubeyolo pipeline schedule apply schedules/retrain-bccd.yaml
    """
    kubeflow = Kubeflow(host)
    for change in _plan(kubeflow, files, owner, images):
        kubeflow.apply(change)
        _print(change)


def diff(
    files: FilesArgument = None,
    owner: OwnerOption = "",
    images: ImagesOption = DEFAULT_IMAGES,
    host: HostOption = "",
) -> None:
    """Show what 'apply' would do. Exit codes: 0 no changes, 1 changes.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule diff
    """
    changes = _plan(Kubeflow(host), files, owner, images)
    for change in changes:
        _print(change)
    if any(change.kind != "keep" for change in changes):
        raise typer.Exit(1)


def list_schedules(host: HostOption = "", as_json: JsonOption = False) -> None:
    """List the recurring runs that were created from schedule files.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule list
    """
    recurring = sorted(Kubeflow(host).recurring(), key=lambda each: each.name)
    if as_json:
        print(json.dumps([asdict(each) for each in recurring], indent=1))
        return
    table = new_table("schedule", "owner", "state", "cron", "id")
    for each in recurring:
        table.add_row(each.name, each.owner, "enabled" if each.enabled else "disabled", each.cron, each.id)
    wide_console().print(table)


def run_now(
    name: NameArgument,
    files: FilesArgument = None,
    wait: WaitOption = False,
    images: ImagesOption = DEFAULT_IMAGES,
    host: HostOption = "",
) -> None:
    """Start one run of a schedule file now; the recurring run is not changed.

    The command is refused while an earlier run of the schedule is not finished.

    Exit codes: 0 submitted, or with --wait succeeded; 1 failed; 2 could not be submitted; 3 terminated.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule run retrain-bccd --wait

      kubeyolo pipeline schedule run retrain-bccd schedules --images build/images.yaml
    """
    by_name = {each.schedule.name: each for each in _wanted(files, images)}
    if name not in by_name:
        raise InputError(f"schedule {name!r}: no file has this name{suggest(name, by_name) if by_name else ''}")
    wanted, kubeflow = by_name[name], Kubeflow(host)
    version = kubeflow.pipeline_version(wanted.schedule.pipeline, wanted.pipeline)
    group = kubeflow.make_experiment(name)
    present = next((run for run in kubeflow.runs(group) if not run.is_over), None)
    if present is not None:
        raise InputError(
            f"schedule {name!r}: its run {present.name} ({present.id}) is not finished, and trains the same model; "
            f"wait for its end, or terminate it: kubeyolo pipeline cancel {present.id}"
        )
    run = kubeflow.submit(f"{name}-{commit_label()}", group, version, wanted.arguments)
    print(f"run {run.name}\nid {run.id}", flush=True)
    if wait:
        wait_for(kubeflow, run)


def delete(name: NameArgument, host: HostOption = "") -> None:
    """Delete a recurring run that was created from a schedule file; its runs stay.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule delete retrain-bccd
    """
    kubeflow = Kubeflow(host)
    recurring = kubeflow.recurring()
    names = {each.name for each in recurring}
    if name not in names:
        raise InputError(f"schedule {name!r}: not known at {kubeflow.host}{suggest(name, names) if names else ''}")
    for each in recurring:
        if each.name == name:
            kubeflow.delete(each)
            print(f"deleted {each.name} ({each.id})")


def _wanted(files: list[Path] | None, images: Path, owner: str = "") -> list[Wanted]:
    """Return the schedules in the files, with the references of the images in their pipelines."""
    owner = check_owner(owner or DEFAULT_OWNER)
    schedules = read_schedules(files or [DEFAULT_FOLDER], partial(check_form, is_remote=True))
    names = {each.pipeline for each in schedules}
    bound = {name: bind_image_file(CompiledPipeline.named(name), images) for name in names}
    return [wanted_schedule(schedule, bound[schedule.pipeline], owner) for schedule in schedules]


def _plan(kubeflow: Kubeflow, files: list[Path] | None, owner: str, images: Path) -> list[Change]:
    wanted = _wanted(files, images, owner)
    has_folder = any(place.is_dir() for place in files or [DEFAULT_FOLDER])
    return plan(wanted, kubeflow.recurring(), all_of=(owner or DEFAULT_OWNER) if has_folder else "")


def _print(change: Change) -> None:
    mark = {"create": "+", "update": "~", "delete": "-", "disable": "-", "enable": "+", "keep": "="}[change.kind]
    print(f"{mark} {change.kind} {change.name}: {change.why}", flush=True)

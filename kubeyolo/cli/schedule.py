"""``kubeyolo pipeline schedule``: recurring runs on Kubeflow that are as the files in git say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeyolo.cli.cluster import HostOption, commit_label, print_run
from kubeyolo.cli.options import DEFAULT_IMAGES, ImagesOption, JsonOption

if TYPE_CHECKING:
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.kubeflow.schedules import Change, Wanted

group = typer.Typer(help="Recurring runs on Kubeflow that are as the files in git say.", no_args_is_help=True)

DEFAULT_FOLDER = Path("schedules")
FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE...", help="Schedule files, or folders of them; by default schedules."),
]
OwnerOption = Annotated[
    str,
    typer.Option(
        "--owner",
        envvar="KUBEYOLO_SCHEDULE_OWNER",
        metavar="NAME",
        help="Whose files these are, 'default' if nothing is said: a name for each repository on one Kubeflow.",
    ),
]


@group.command("apply")
def apply(
    files: FilesArgument = None,
    owner: OwnerOption = "",
    images: ImagesOption = DEFAULT_IMAGES,
    host: HostOption = "",
) -> None:
    """Create, update, enable and disable recurring runs so that they are as the files say.

    A folder stands for all files of the owner: schedules of theirs whose file is gone are disabled. Files that are
    named alone disable nothing. What other owners, or others, have made in Kubeflow is left alone.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule apply

      kubeyolo pipeline schedule apply schedules --owner team/cells --images images.yaml

      kubeyolo pipeline schedule apply schedules/retrain-bccd.yaml
    """
    from kubeyolo.kubeflow.client import Kubeflow

    kubeflow = Kubeflow(host)
    for change in _plan(kubeflow, files, owner, images):
        kubeflow.apply(change)
        _print(change)


@group.command("diff")
def diff(
    files: FilesArgument = None,
    owner: OwnerOption = "",
    images: ImagesOption = DEFAULT_IMAGES,
    host: HostOption = "",
) -> None:
    """Show what 'apply' would do. Exit codes: 0 nothing, 1 something.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule diff
    """
    from kubeyolo.kubeflow.client import Kubeflow

    changes = _plan(Kubeflow(host), files, owner, images)
    for change in changes:
        _print(change)
    if any(change.kind != "keep" for change in changes):
        raise typer.Exit(1)


@group.command("list")
def list_schedules(host: HostOption = "", as_json: JsonOption = False) -> None:
    """List the recurring runs that schedule files have made.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule list
    """
    import json
    from dataclasses import asdict

    from rich import box
    from rich.table import Table

    from kubeyolo.cli.tables import wide_console
    from kubeyolo.kubeflow.client import Kubeflow

    found = sorted(Kubeflow(host).recurring(), key=lambda one: one.name)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("schedule", "owner", "state", "cron", "id"):
        table.add_column(column, no_wrap=True)
    for one in found:
        table.add_row(one.name, one.owner, "enabled" if one.enabled else "disabled", one.cron, one.id)
    wide_console().print(table)


@group.command("run")
def run_now(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")],
    files: FilesArgument = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, and show the steps.")] = False,
    images: ImagesOption = DEFAULT_IMAGES,
    host: HostOption = "",
) -> None:
    """Start now what a schedule file says, once; the recurring run stays as it is.

    Refused while a run of the schedule is under way.

    Exit codes: 0 submitted, or with --wait succeeded; 1 failed; 2 could not be submitted; 3 terminated.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule run retrain-bccd --wait

      kubeyolo pipeline schedule run retrain-bccd schedules --images build/images.yaml
    """
    from kubeyolo.cli.display import RunDisplay
    from kubeyolo.errors import InputError, suggest
    from kubeyolo.kubeflow.client import Kubeflow
    from kubeyolo.kubeflow.follow import follow

    wanted = {one.schedule.name: one for one in _wanted(files, images)}
    if name not in wanted:
        raise InputError(f"schedule {name!r}: no file has this name{suggest(name, wanted) if wanted else ''}")
    one, kubeflow = wanted[name], Kubeflow(host)
    version = kubeflow.pipeline_version(one.schedule.pipeline, one.text)
    group = kubeflow.make_experiment(name)
    going = next((run for run in kubeflow.runs(group) if not run.is_over), None)
    if going is not None:
        raise InputError(
            f"schedule {name!r}: a run of it is under way, {going.name} ({going.id}), and would train the same; "
            f"wait for its end, or end it: kubeyolo pipeline cancel {going.id}"
        )
    run = kubeflow.submit(f"{name}-{commit_label()}", group, version, one.arguments)
    print(f"run {run.name}\nid {run.id}", flush=True)
    if wait:
        print_run(follow(kubeflow, run.id, RunDisplay()))


@group.command("delete")
def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the schedule.")], host: HostOption = ""
) -> None:
    """Delete a recurring run that a schedule file has made; its runs stay.

    [bold]Examples[/bold]

      kubeyolo pipeline schedule delete retrain-bccd
    """
    from kubeyolo.errors import InputError, suggest
    from kubeyolo.kubeflow.client import Kubeflow

    kubeflow = Kubeflow(host)
    known = kubeflow.recurring()
    ours = [one for one in known if one.name == name]
    if not ours:
        names = {one.name for one in known}
        raise InputError(f"schedule {name!r}: not known at {kubeflow.host}{suggest(name, names) if names else ''}")
    for one in ours:
        kubeflow.delete(one)
        print(f"deleted {one.name} ({one.id})")


def _wanted(files: list[Path] | None, images: Path, owner: str = "") -> list[Wanted]:
    """Return the schedules of files, with the images bound into their pipelines."""
    from functools import partial

    from kubeyolo.compiled.images import bind_image_file
    from kubeyolo.compiled.read import pipeline_text
    from kubeyolo.kubeflow.schedules import DEFAULT_OWNER, check_owner, read_schedules, wanted_schedule
    from kubeyolo.steps.checked_form import check_form

    owner = check_owner(owner or DEFAULT_OWNER)
    schedules = read_schedules(files or [DEFAULT_FOLDER], partial(check_form, is_remote=True))
    texts = {name: bind_image_file(pipeline_text(name), images) for name in {each.pipeline for each in schedules}}
    return [wanted_schedule(schedule, texts[schedule.pipeline], owner) for schedule in schedules]


def _plan(kubeflow: Kubeflow, files: list[Path] | None, owner: str, images: Path) -> list[Change]:
    from kubeyolo.kubeflow.schedules import DEFAULT_OWNER, plan

    wanted = _wanted(files, images, owner)
    has_folder = any(place.is_dir() for place in files or [DEFAULT_FOLDER])
    return plan(wanted, kubeflow.recurring(), all_of=(owner or DEFAULT_OWNER) if has_folder else "")


def _print(change: Change) -> None:
    mark = {"create": "+", "update": "~", "delete": "-", "disable": "-", "enable": "+", "keep": "="}[change.kind]
    print(f"{mark} {change.kind} {change.name}: {change.why}", flush=True)

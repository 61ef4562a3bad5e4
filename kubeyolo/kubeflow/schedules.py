"""Schedules as files: the recurring runs that Kubeflow should have, and the changes that are needed for this."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names
from kubeyolo.config.form import check_fields
from kubeyolo.config.text import read_text
from kubeyolo.config.text_file import read_text_file
from kubeyolo.errors import InputError, WorkError, problem_of, suggest

DEFAULT_OWNER = "default"
"""Default owner of schedules."""

_CRON_FIELDS = 6
_CRON_FIELD = re.compile(r"[\w*/,?#-]+")
_OWNER = re.compile(r"[\w.-]+(/[\w.-]+)*")
_MACRO = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)")

Check = Callable[[str, Mapping[str, str]], object]
"""Checks the filled-in form of a pipeline; its arguments are the pipeline's name and the form."""

Kind = Literal["create", "update", "enable", "disable", "delete", "keep"]


class Schedule(BaseModel):
    """A file of a schedule.

    Attributes:
        name: Its name, unique among the files.
        cron: Time of the runs in Kubeflow's six fields, seconds first, in UTC: ``0 0 3 * * 1`` is Mondays at three.
        pipeline: Name of a compiled pipeline.
        parameters: Values of the fields of its form; ``settings`` may be nested as in a configuration file.
        resources: Quantities by step and resource, such as ``train.memory: 32Gi``.
        concurrency: How many of its runs may run at the same time.
        catch_up: Whether runs that were due while Kubeflow or the schedule was off are started later.
        enabled: Whether the schedule is switched on.
        description: Text that Kubeflow shows with the recurring run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    cron: str
    pipeline: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    resources: dict[str, str | int | float] = Field(default_factory=dict)
    concurrency: int = Field(default=1, ge=1, le=10, strict=True)
    catch_up: bool = False
    enabled: bool = True
    description: str = ""


@dataclass(frozen=True)
class Wanted:
    """A schedule as it should be on Kubeflow.

    Attributes:
        schedule: Content of its file.
        arguments: Text by field of the form.
        pipeline: Its pipeline.
        owner: Owner of the file.
        digest: Digest of everything that defines it on Kubeflow.
    """

    schedule: Schedule
    arguments: Mapping[str, str]
    pipeline: CompiledPipeline
    owner: str
    digest: str


@dataclass(frozen=True)
class Recurring:
    """A recurring run on Kubeflow that was created from a schedule file; its description has name, owner and digest."""

    id: str
    name: str
    owner: str
    digest: str
    enabled: bool
    cron: str = ""


@dataclass(frozen=True)
class Change:
    """A change of one schedule.

    Attributes:
        kind: create, update, enable, disable, delete or keep.
        name: Name of the schedule.
        why: The reason, as a phrase.
        wanted: The schedule as it should be, for create and update.
        found: Its recurring run on Kubeflow.
    """

    kind: Kind
    name: str
    why: str
    wanted: Wanted | None = None
    found: Recurring | None = None


def read_schedules(places: Sequence[Path], check: Check) -> list[Schedule]:
    """Read schedule files, and the files of folders (``*.yaml``), in the order of their names.

    Args:
        places: Files and folders.
        check: Refuses a form with invalid settings.

    Raises:
        InputError: A file cannot be read or is not a schedule, or two files have the same name.
    """
    files: list[Path] = []
    for place in places:
        if not place.exists():
            about_git = (
                ""
                if place.suffix
                else "; git does not store empty folders: after the last file, 'kubeyolo pipeline schedule "
                f"delete NAME' ends its schedule, and an empty file {place / '.gitkeep'} keeps the folder"
            )
            raise InputError(f"{place}: no such file or folder of schedules{about_git}")
        files += sorted(place.glob("*.yaml")) if place.is_dir() else [place]
    by_name: dict[str, Path] = {}
    schedules = []
    for file in files:
        schedule = _read(file, check)
        if schedule.name in by_name:
            raise InputError(f"{file}: the name {schedule.name!r} is also used in {by_name[schedule.name]}")
        by_name[schedule.name] = file
        schedules.append(schedule)
    return schedules


def check_owner(owner: str) -> str:
    """Return the name of an owner of schedules, such as the name of a repository.

    Raises:
        InputError: The name has characters that are not allowed.
    """
    if not _OWNER.fullmatch(owner):
        raise InputError(f"owner {owner!r}: expected letters, digits and . _ - /, such as team/cells")
    return owner


def wanted_schedule(schedule: Schedule, pipeline: CompiledPipeline, owner: str = DEFAULT_OWNER) -> Wanted:
    """Return a schedule with its form checked against the pipeline.

    Args:
        schedule: The schedule.
        pipeline: Its pipeline, with images bound.
        owner: Owner of the file.

    Raises:
        InputError: A field is unknown, or a required one is missing, or its resources are not allowed.
    """
    try:
        arguments = _form(pipeline, schedule.parameters)
        pipeline = _with_resources(pipeline, schedule)
    except InputError as error:
        raise InputError(f"schedule {schedule.name}: {error}") from error
    content = {
        **schedule.model_dump(mode="json", exclude={"enabled", "parameters", "resources"}),
        "arguments": arguments,
        "pipeline": hashlib.sha256(pipeline.text.encode()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    return Wanted(schedule, arguments, pipeline, owner, digest)


def plan(wanted: Iterable[Wanted], found: Iterable[Recurring], all_of: str = "") -> list[Change]:
    """Return the changes that make the recurring runs match the files, in the order of the names.

    If an interrupted update has left two recurring runs with the same name, one is deleted.

    Args:
        wanted: The schedules of the files.
        found: The recurring runs on Kubeflow.
        all_of: The owner whose files are complete: the owner's recurring runs without a file are disabled, not deleted.
            If empty, recurring runs without a file are left unchanged.

    Raises:
        InputError: A schedule with the same name has a different owner.
    """
    files = {one.schedule.name: one for one in wanted}
    there: dict[str, list[Recurring]] = {}
    for recurring in found:
        if recurring.name in files:
            _check_same_owner(files[recurring.name], recurring)
        elif recurring.owner != all_of:
            continue
        there.setdefault(recurring.name, []).append(recurring)
    changes: list[Change] = []
    for name in sorted({*files, *there}):
        known = there.get(name, [])
        one = files.get(name)
        same = [recurring for recurring in known if one is not None and recurring.digest == one.digest]
        kept = next(iter((*same, *known)), None)
        changes += [Change("delete", name, "a second run with this name", found=two) for two in known if two != kept]
        changes.append(_change(name, one, kept))
    return changes


def _form(pipeline: CompiledPipeline, parameters: Mapping[str, Any]) -> dict[str, str]:
    return check_fields(parameters, list(pipeline.fields), list(pipeline.required_fields))


def _with_resources(pipeline: CompiledPipeline, schedule: Schedule) -> CompiledPipeline:
    changes = {key: str(value) for key, value in schedule.resources.items()}
    return pipeline.bind_resources(changes) if changes else pipeline


def _check_same_owner(wanted: Wanted, found: Recurring) -> None:
    if wanted.owner != found.owner:
        raise InputError(
            f"schedule {found.name}: belongs to owner {found.owner!r}, your files to {wanted.owner!r}; rename your "
            f"schedule, pass --owner {found.owner} if it is the same schedule, or delete it: kubeyolo pipeline "
            f"schedule delete {found.name}"
        )


def _change(name: str, wanted: Wanted | None, found: Recurring | None) -> Change:
    if wanted is None:
        assert found is not None
        if found.enabled:
            return Change("disable", name, "its file was removed", found=found)
        return Change("keep", name, "disabled, without a file", found=found)
    if found is None:
        return Change("create", name, "new", wanted)
    if found.digest != wanted.digest:
        return Change("update", name, "its file or its pipeline has changed", wanted, found)
    if found.enabled != wanted.schedule.enabled:
        kind: Kind = "enable" if wanted.schedule.enabled else "disable"
        return Change(kind, name, f"enabled is {str(wanted.schedule.enabled).lower()} in its file", wanted, found)
    return Change("keep", name, "it matches its file", wanted, found)


def _read(file: Path, check: Check) -> Schedule:
    text = read_text_file(file, "schedule")
    content = read_text(text, f"schedule {file}")
    if not isinstance(content, dict):
        raise InputError(f"schedule {file}: expected keys and values, such as name: retrain-bccd")
    for key in content:
        if key not in Schedule.model_fields:
            raise InputError(f"schedule {file}: unknown key {key!r}{suggest(str(key), Schedule.model_fields)}")
    try:
        schedule = Schedule.model_validate(content)
    except ValidationError as error:
        wrong = problem_of(error)
        remedy = "; write it in quotes" if wrong.kind == "string_type" else ""
        raise InputError(f"schedule {file}: {wrong.key} = {wrong.value!r}: {wrong.reason}{remedy}") from error
    if schedule.pipeline not in pipeline_names():
        raise InputError(
            f"schedule {file}: unknown pipeline {schedule.pipeline!r}{suggest(schedule.pipeline, pipeline_names())}"
        )
    _check_cron(file, schedule.cron)
    try:
        pipeline = _with_resources(CompiledPipeline.named(schedule.pipeline), schedule)
        check(schedule.pipeline, _form(pipeline, schedule.parameters))
    except (InputError, WorkError) as error:
        raise InputError(f"schedule {file}: {error}") from error
    return schedule


def _check_cron(file: Path, cron: str) -> None:
    fields = cron.split()
    if _MACRO.fullmatch(cron) or (len(fields) == _CRON_FIELDS and all(map(_CRON_FIELD.fullmatch, fields))):
        return
    remedy = f"write '0 {cron}'" if len(fields) == _CRON_FIELDS - 1 else "such as '0 0 3 * * 1'"
    raise InputError(f"schedule {file}: cron {cron!r}: expected Kubeflow's 6 fields, seconds first; {remedy}")

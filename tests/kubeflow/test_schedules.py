"""Recurring runs are made to be as files say, and others are left alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.catalogue import PIPELINES
from kubeyolo.compiled.images import IMAGE_NAMES
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.config.form import resolve_form
from kubeyolo.errors import InputError
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.schedules import (
    DEFAULT_OWNER,
    Change,
    Schedule,
    check_owner,
    plan,
    read_schedules,
    wanted_schedule,
)
from kubeyolo.steps.checked_form import check_form
from tests.kubeflow.kubeflow_double import KubeflowDouble

BASE: dict[str, Any] = {
    "name": "retrain-bccd",
    "cron": "0 0 3 * * 1",
    "pipeline": "detector-training",
    "parameters": {"data": "minio://kubeyolo/data/bccd", "store": "minio://kubeyolo", "max_epoch": 20},
}
FORM = {"data": "minio://kubeyolo/data/bccd", "store": "minio://kubeyolo", "max_epoch": "20"}
"""The same parameters as the texts that Kubeflow is sent."""


def write(folder: Path, **values: Any) -> Path:
    content = BASE | values
    folder.mkdir(exist_ok=True)
    (folder / f"{content['name']}.yaml").write_text(yaml.safe_dump(content))
    return folder


def read(*places: Path) -> list[Schedule]:
    """Read schedule files as the command line does."""
    return read_schedules(places, partial(check_form, is_remote=True))


def changes(folder: Path, pipeline: CompiledPipeline | None = None, owner: str = DEFAULT_OWNER) -> list[Change]:
    wanted = [wanted_schedule(one, pipeline or CompiledPipeline.named(one.pipeline), owner) for one in read(folder)]
    return plan(wanted, Kubeflow().recurring(), all_of=owner)


def applied(folder: Path, pipeline: CompiledPipeline | None = None, owner: str = DEFAULT_OWNER) -> list[str]:
    done = changes(folder, pipeline, owner)
    for change in done:
        Kubeflow().apply(change)
    return [f"{change.kind} {change.name}" for change in done]


def test_the_pods_of_a_schedule_get_the_resources_of_its_file(double: KubeflowDouble, tmp_path: Path) -> None:
    folder = write(tmp_path / "schedules")
    assert applied(folder) == ["create retrain-bccd"]
    write(folder, resources={"train.memory": "32Gi", "train.cpu": 4})
    (change,) = changes(folder)
    assert change.kind == "update" and change.wanted is not None
    resources = change.wanted.pipeline.resources["train"]
    assert (resources.memory, resources.cpu) == ("32Gi", "4")
    assert applied(folder) == ["update retrain-bccd"] and applied(folder) == ["keep retrain-bccd"]
    write(folder, resources={"train.memroy": "32Gi"})
    with pytest.raises(InputError, match=r"retrain-bccd\.yaml: unknown resource 'memroy' .*; did you mean 'memory'"):
        read(folder)


def test_a_file_makes_a_recurring_run_and_the_second_time_nothing(double: KubeflowDouble, tmp_path: Path) -> None:
    folder = write(tmp_path / "schedules", concurrency=2, description="Mondays")
    assert applied(folder) == ["create retrain-bccd"]
    (made,) = double.recurring.values()
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * 1"}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("2", True, "ENABLE")
    assert made["runtime_config"]["parameters"] == FORM
    assert made["description"].startswith("Mondays\n")
    before = dict(double.recurring)
    assert applied(folder) == ["keep retrain-bccd"]
    assert double.recurring == before


@pytest.mark.parametrize(
    "values",
    [
        {"cron": "0 0 4 * * 1"},
        {"concurrency": 3},
        {"catch_up": True},
        {"parameters": {**BASE["parameters"], "max_epoch": 21}},
        {"parameters": {**BASE["parameters"], "settings": {"train": {"seed": 1}}}},
    ],
)
def test_a_changed_file_takes_the_place_of_the_old_one(
    double: KubeflowDouble, tmp_path: Path, values: dict[str, Any]
) -> None:
    applied(write(tmp_path / "schedules"))
    (old,) = double.recurring
    assert applied(write(tmp_path / "schedules", **values)) == ["update retrain-bccd"]
    (new,) = double.recurring
    assert new != old
    assert applied(tmp_path / "schedules") == ["keep retrain-bccd"]


def test_a_changed_pipeline_is_taken_up(double: KubeflowDouble, tmp_path: Path) -> None:
    folder = write(tmp_path / "schedules")
    applied(folder)
    assert applied(folder, CompiledPipeline(CompiledPipeline.named().text + "# other images\n")) == [
        "update retrain-bccd"
    ]
    assert len(double.uploads) == 2


def test_schedules_are_switched_off_and_on(double: KubeflowDouble, tmp_path: Path) -> None:
    applied(write(tmp_path / "schedules"))
    assert applied(write(tmp_path / "schedules", enabled=False)) == ["disable retrain-bccd"]
    assert [made["status"] for made in double.recurring.values()] == ["DISABLED"]
    assert applied(tmp_path / "schedules") == ["keep retrain-bccd"]
    assert applied(write(tmp_path / "schedules")) == ["enable retrain-bccd"]
    assert [made["status"] for made in double.recurring.values()] == ["ENABLED"]


def test_one_without_its_file_is_disabled_and_those_of_others_are_left_alone(
    double: KubeflowDouble, tmp_path: Path
) -> None:
    folder = write(tmp_path / "schedules")
    write(folder, name="other")
    applied(folder)
    theirs = {"recurring_run_id": "theirs", "display_name": "retrain-bccd", "description": "", "status": "ENABLED"}
    double.recurring["theirs"] = theirs
    (folder / "retrain-bccd.yaml").unlink()
    assert applied(folder) == ["keep other", "disable retrain-bccd"]
    assert applied(folder) == ["keep other", "keep retrain-bccd"]
    assert sorted(made["status"] for made in double.recurring.values()) == ["DISABLED", "ENABLED", "ENABLED"]
    assert theirs["status"] == "ENABLED"
    # As git has it with a .gitkeep, when the last one is removed.
    (folder / "other.yaml").unlink()
    assert applied(folder) == ["disable other", "keep retrain-bccd"]


def test_owners_neither_disable_nor_replace_each_others(double: KubeflowDouble, tmp_path: Path) -> None:
    cells, wings = write(tmp_path / "cells"), write(tmp_path / "wings", name="retrain-wings")
    assert applied(cells, owner="team/cells") == ["create retrain-bccd"]
    assert applied(wings, owner="wings") == ["create retrain-wings"]
    assert applied(cells, owner="team/cells") == ["keep retrain-bccd"]
    assert {one.name: one.owner for one in Kubeflow().recurring()} == {
        "retrain-bccd": "team/cells",
        "retrain-wings": "wings",
    }
    (wings / "retrain-wings.yaml").unlink()
    assert applied(wings, owner="wings") == ["disable retrain-wings"]

    before = dict(double.recurring)
    with pytest.raises(InputError, match="retrain-bccd: .* owner 'team/cells', .* to 'wings'; .*schedule delete ret"):
        applied(write(tmp_path / "wings"), owner="wings")
    assert double.recurring == before


@pytest.mark.parametrize("owner", ["", "a b", "/a", "a/", "a//b", 'a"'])
def test_names_that_no_owner_has_are_refused(owner: str) -> None:
    with pytest.raises(InputError, match="owner .*: expected letters"):
        check_owner(owner)


def test_what_an_interrupted_update_has_left_is_mended(double: KubeflowDouble, tmp_path: Path) -> None:
    applied(write(tmp_path / "schedules"))
    (update,) = changes(write(tmp_path / "schedules", cron="0 0 5 * * *"))
    assert update.wanted is not None
    Kubeflow().schedule(update.wanted)  # and then the process was killed
    assert len(double.recurring) == 2
    assert applied(tmp_path / "schedules") == ["delete retrain-bccd", "keep retrain-bccd"]
    (left,) = double.recurring.values()
    assert left["trigger"]["cron_schedule"]["cron"] == "0 0 5 * * *"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cron": "0 3 * * 1"}, "cron '0 3 . . 1': expected Kubeflow's 6 fields, seconds first; write '0 0 3 "),
        ({"cron": "tomorrow"}, "cron 'tomorrow'"),
        ({"pipeline": "detector-trainin"}, "unknown pipeline 'detector-trainin'; did you mean 'detector-training'"),
        ({"concurency": 1}, "unknown key 'concurency'; did you mean 'concurrency'"),
        ({"concurrency": 0}, "concurrency = 0"),
        ({"name": "Retrain BCCD"}, "name = 'Retrain BCCD'"),
        ({"parameters": {"store": "minio://s"}}, "the field 'data' is empty .URI of the data set"),
        ({"parameters": {**BASE["parameters"], "lr": "x"}}, "train.lr = 'x' .*expected a number"),
        ({"parameters": {**BASE["parameters"], "min_ap": 50}}, "evaluate.min_ap = '50'"),
        (
            {"parameters": {**BASE["parameters"], "max_epochs": 3}},
            "unknown field 'max_epochs'; did you mean 'max_epoch'",
        ),
        (
            {"parameters": {**BASE["parameters"], "seed": 3}},
            "unknown field 'seed'; it has no field: write .train: .seed",
        ),
        (
            {"parameters": {**BASE["parameters"], "settings": {"train": {"sed": 3}}}},
            "unknown configuration key 'train.sed'",
        ),
        (
            {"parameters": {**BASE["parameters"], "settings": {"train": {"max_epoch": 3}}}},
            "train.max_epoch is given twice: '20' by the field max_epoch, and 3 in the field settings",
        ),
        ({"parameters": {**BASE["parameters"], "fingerprint": "f"}}, "unknown field 'fingerprint'"),
        ({"parameters": {**BASE["parameters"], "weights": "w.pt"}}, "train.weights = w.pt: pods cannot read folders"),
        (
            {"parameters": {**BASE["parameters"], "data": "/home/me/data"}},
            "the field data = /home/me/data: pods cannot read",
        ),
    ],
)
def test_bad_files_are_named(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    (tmp_path / "one.yaml").write_text(yaml.safe_dump(BASE | values))
    with pytest.raises(InputError, match=f"^schedule {tmp_path}/one.yaml: {message}"):
        read(tmp_path)


def test_two_files_of_one_name_and_places_that_are_not_there_are_refused(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(yaml.safe_dump(BASE))
    with pytest.raises(InputError, match="b.yaml: the name 'retrain-bccd' is also used in .*a.yaml"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"absent: no such file or folder .*schedule delete NAME.*absent/\.git"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("cron", ["0 */15 * * * *", "@daily", "@every 1h", "0 0 3 * * MON-FRI"])
def test_crons_of_kubeflow_are_taken(tmp_path: Path, cron: str) -> None:
    (schedule,) = read(write(tmp_path / "s", cron=cron))
    assert schedule.cron == cron


def test_parameters_are_sent_as_texts_with_nested_settings(double: KubeflowDouble, tmp_path: Path) -> None:
    settings = {"train": {"seed": 1, "nesterov": False}, "pretrain": {"enabled": False}}
    parameters = {**BASE["parameters"], "min_ap": 0, "lr": 0.02, "settings": settings, "version": None}
    applied(write(tmp_path / "schedules", parameters=parameters))
    (made,) = double.recurring.values()
    sent = made["runtime_config"]["parameters"]
    # Kubeflow takes nothing but text for these fields, and refuses those that it does not know.
    assert {type(value) for value in sent.values()} == {str} and set(sent) <= set(CompiledPipeline.named().fields)
    assert sent == FORM | {
        "min_ap": "0",
        "lr": "0.02",
        "settings": '{"pretrain": {"enabled": false}, "train": {"nesterov": false, "seed": 1}}',
    }
    config = resolve_form(sent).config
    assert (config.train.seed, config.train.nesterov, config.pretrain.enabled, config.train.lr) == (
        1,
        False,
        False,
        0.02,
    )


def test_settings_may_be_a_text_as_in_the_form(tmp_path: Path) -> None:
    parameters = {**BASE["parameters"], "settings": "train: {seed: 1}"}
    (schedule,) = read(write(tmp_path / "schedules", parameters=parameters))
    assert wanted_schedule(schedule, CompiledPipeline.named()).arguments == FORM | {"settings": "train: {seed: 1}"}


def test_a_schedule_may_leave_its_store_to_the_cluster(
    double: KubeflowDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBEYOLO_STORE", raising=False)
    applied(write(tmp_path / "schedules", parameters={"data": "minio://kubeyolo/data/bccd"}))
    (made,) = double.recurring.values()
    assert made["runtime_config"]["parameters"] == {"data": "minio://kubeyolo/data/bccd"}


def test_the_example_in_git_makes_a_recurring_retraining(double: KubeflowDouble) -> None:
    folder = Path(__file__).resolve().parents[2] / "examples" / "schedules"
    assert applied(folder) == ["create retrain-bccd"]
    assert applied(folder) == ["keep retrain-bccd"]
    (made,) = double.recurring.values()
    assert (made["max_concurrency"], made["no_catchup"]) == ("1", True)
    given = made["runtime_config"]["parameters"]
    assert given["pointer"] == "minio://kubeyolo/data/latest.json"
    config = resolve_form(given).config
    assert (config.train.max_epoch, config.retrain.max_regression) == (100, 0.5)


def never_cached(text: str) -> set[str]:
    """Return the tasks of a pipeline that are never taken from the cache."""
    one = next(yaml.safe_load_all(text))
    graphs = (one["root"]["dag"], *(part.get("dag", {}) for part in one["components"].values()))
    tasks = [task for graph in graphs for task in graph.get("tasks", {}).items()]
    leaves = [(name, task) for name, task in tasks if "dag" not in one["components"][task["componentRef"]["name"]]]
    return {name for name, task in leaves if not task["cachingOptions"].get("enableCache")}


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_run_of_a_schedule_looks_at_its_data_and_takes_the_rest_from_the_cache(
    double: KubeflowDouble, tmp_path: Path, pipeline: str
) -> None:
    places = {"detector-retraining": ["pointer"], "model-evaluation": ["data", "bundle"]}.get(pipeline, ["data"])
    parameters = {place: "minio://kubeyolo/x" for place in places}
    folder = write(tmp_path / "schedules", pipeline=pipeline, parameters=parameters)
    (change,) = changes(folder)
    assert change.wanted is not None
    assert never_cached(change.wanted.pipeline.text) == {
        name for name in ("configure", "promote") if name in change.wanted.pipeline.tasks
    }
    assert applied(folder) == ["create retrain-bccd"]
    # What is uploaded is what was looked at, and the digest of the recurring run is of it.
    assert change.wanted.pipeline.text.encode() in double.uploads[0]
    assert applied(folder) == ["keep retrain-bccd"] and len(double.uploads) == 1


@pytest.fixture
def schedule_command(double: KubeflowDouble, tmp_path: Path) -> Callable[..., int]:
    """The command line, which returns its exit code."""
    from kubeyolo.cli.app import main

    images = tmp_path / "images.yaml"
    images.write_text("".join(f"{name}: registry/{name}@sha256:{'0' * 64}\n" for name in IMAGE_NAMES))

    def call(command: str, *arguments: str) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["pipeline", "schedule", command, *arguments, "--images", str(images), "--host", double.host])
        return int(ended.value.code or 0)

    return call


def test_a_folder_stands_for_all_files_of_its_owner_and_a_file_for_itself(
    double: KubeflowDouble,
    tmp_path: Path,
    schedule_command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "schedules")
    write(folder, name="other")
    assert schedule_command("apply") == 0
    assert capsys.readouterr().out.splitlines() == ["+ create other: new", "+ create retrain-bccd: new"]

    file = str(folder / "retrain-bccd.yaml")
    assert schedule_command("diff", file) == 0
    (folder / "other.yaml").unlink()
    assert schedule_command("apply", file) == 0
    assert capsys.readouterr().out.splitlines() == ["= keep retrain-bccd: it matches its file"] * 2
    monkeypatch.setenv("KUBEYOLO_SCHEDULE_OWNER", "wings")
    assert schedule_command("diff", file) == 2
    assert "retrain-bccd: belongs to owner 'default'" in capsys.readouterr().err
    assert schedule_command("diff", str(write(tmp_path / "wings", name="retrain-wings"))) == 1
    assert capsys.readouterr().out.splitlines() == ["+ create retrain-wings: new"]
    assert schedule_command("diff", "--owner", "default") == 1
    assert "- disable other: its file was removed" in capsys.readouterr().out.splitlines()
    assert [made["status"] for made in double.recurring.values()] == ["ENABLED", "ENABLED"]


def test_a_schedule_is_run_now_without_a_recurring_run(
    double: KubeflowDouble, tmp_path: Path, schedule_command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> int:
        return schedule_command("run", *arguments)

    files = str(write(tmp_path / "schedules"))
    assert call("retrain-bccd", files) == 0
    assert capsys.readouterr().out.startswith("run retrain-bccd-")
    (run,) = double.runs.values()
    assert run.body["runtime_config"]["parameters"] == FORM
    assert not double.recurring
    assert call("retrain-bccd", files) == 2
    error = capsys.readouterr().err
    assert f"its run {run.body['display_name']} (" in error and ") is not finished, and trains the same" in error
    assert len(double.runs) == 1
    run.states = [("SUCCEEDED", [])]
    assert call("retrain-bccd", files) == 0 and len(double.runs) == 2
    capsys.readouterr()
    assert call("retrain-bcd", files) == 2
    assert "no file has this name; did you mean 'retrain-bccd'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1.10", "the field 'version' is 1.1, not a text: write it in quotes"),
        ("version: 3", "the field 'version' is 3, not a text: write it in quotes"),
        ("version: &v x", "not JSON or YAML: anchors and aliases"),
        ("version: a\n  version: b", "not JSON or YAML: the key 'version' is given twice"),
    ],
)
def test_values_of_a_file_that_would_become_others_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        f"name: one\ncron: '@daily'\npipeline: detector-training\nparameters:\n  data: minio://d\n  {text}\n"
    )
    with pytest.raises(InputError, match=f"^schedule {file}: {message}"):
        read(file)


def test_texts_in_quotes_and_numbers_of_a_file_stay_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "one.yaml"
    file.write_text(
        "name: one\ncron: '@daily'\npipeline: detector-training\n"
        "parameters: {data: minio://data, version: '1.10', lr: 1e-3, max_epoch: 10}\n"
    )
    (schedule,) = read(file)
    arguments = wanted_schedule(schedule, CompiledPipeline.named()).arguments
    assert arguments == {"data": "minio://data", "version": "1.10", "lr": "0.001", "max_epoch": "10"}
    file.write_text("name: one\ncron: '@daily'\npipeline: detector-training\ndescription: 1.10\n")
    with pytest.raises(InputError, match="description = 1.1: .*write it in quotes"):
        read(file)
    file.write_text("name: one\ncron: '@daily'\npipeline: detector-training\nparameters: {max_epoch: 010}\n")
    with pytest.raises(InputError, match="010 has leading zeros, as octal numbers have; write 10"):
        read(file)

"""What holds for every compiled pipeline: tasks are steps of the catalogue, forms are described, files are fresh."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo import __version__
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, MODEL_EVALUATION, PIPELINES, STEPS, Step
from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names, tasks_of
from kubeyolo.config.form import describe_field, setting_fields
from kubeyolo.config.load import preset_names
from kubeyolo.evaluation.results import RUNTIMES
from kubeyolo.launch.launcher import LAUNCHERS
from kubeyolo.launch.policy import CONFIG_MAP, POLICY_FOLDER
from kubeyolo.processes import CONTAINER_VARIABLES

pytest.importorskip("kfp")

from pipelines.compile import compile_all, stale
from pipelines.pod import STEP_LABELS
from pipelines.tables import ROOT, made_files, stale_tables

COMMON = {"configure", "validate_dataset", "evaluate"}
DETECTOR = {"pretrain_backbone", "train", "export_model", "quantize"}
TASKS = {
    DETECTOR_TRAINING: COMMON | DETECTOR | {"publish"},
    DETECTOR_RETRAINING: COMMON | DETECTOR | {"evaluate_current", "promote"},
    MODEL_EVALUATION: COMMON | {"evaluate_baseline"},
}
SETTINGS = {"model", "max_epoch", "image_size", "per_batch_size", "lr", "min_ap", "max_drop", "settings"}
TRAINING = SETTINGS | {"store", "weights", "launcher", "cluster"}
PUBLISHING = {"pretrain_backbone", "train", "export_model", "quantize", "publish", "promote"}
"""Steps that publish bundles, and sign them if there is a key."""

FIELDS = {
    DETECTOR_TRAINING: TRAINING | {"data", "version"},
    DETECTOR_RETRAINING: TRAINING | {"pointer", "start_from", "max_regression"},
    MODEL_EVALUATION: {"bundle", "data", "baseline", "store", "runtime", "launcher", "cluster", "settings"},
}
REQUIRED = {DETECTOR_TRAINING: {"data"}, DETECTOR_RETRAINING: {"pointer"}, MODEL_EVALUATION: {"bundle", "data"}}
FILLED = {"model": "yolov5n-r7", "launcher": "local", "runtime": "mindspore"}
"""Fields that are not empty when a form is opened."""

LITERALS = {"model": preset_names(), "launcher": LAUNCHERS, "runtime": RUNTIMES}
SAME_PROGRAM = {"evaluate_baseline": "evaluate"}
"""Tasks that run the program of a step under a name of their own."""

every_pipeline = pytest.mark.parametrize("name", sorted(PIPELINES))


def document(name: str) -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(CompiledPipeline.named(name).text)))


def pods(name: str) -> dict[str, dict[str, Any]]:
    """Return what Kubernetes alone knows of the pod of each task."""
    _, platform = yaml.safe_load_all(CompiledPipeline.named(name).text)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {executor.removeprefix("exec-").replace("-", "_"): facts for executor, facts in executors.items()}


def tasks(name: str) -> dict[str, dict[str, Any]]:
    """Return the tasks of a pipeline without the groups, by name."""
    known = CompiledPipeline.named(name).tasks
    found = ((task.replace("-", "_"), facts) for task, facts in tasks_of(document(name)))
    return {task: facts for task, facts in found if task in known}


def step_of(task: str) -> Step:
    return STEPS[SAME_PROGRAM.get(task, task)]


def component(name: str, task: str) -> dict[str, Any]:
    return dict(document(name)["components"][tasks(name)[task]["componentRef"]["name"]])


def producer(name: str, task: str, parameter: str) -> tuple[str, str]:
    """Return which task, and which of its outputs, a parameter of a task is from."""
    value = tasks(name)[task]["inputs"]["parameters"][parameter]
    if "taskOutputParameter" in value:
        found = value["taskOutputParameter"]
        return found["producerTask"].replace("-", "_"), found["outputParameterKey"]
    channel = value["componentInputParameter"]
    for _, group in tasks_of(document(name)):
        outer = group.get("inputs", {}).get("parameters", {}).get(channel, {})
        if channel.startswith("pipelinechannel--") and "taskOutputParameter" in outer:
            found = outer["taskOutputParameter"]
            return found["producerTask"].replace("-", "_"), found["outputParameterKey"]
    return "form", channel


def test_the_compiled_pipelines_and_the_made_tables_are_fresh() -> None:
    assert stale() == [], "run `make pipelines`"
    assert stale_tables() == [], "run `make pipelines`"


def test_every_pipeline_of_the_catalogue_is_compiled_and_no_other() -> None:
    assert pipeline_names() == tuple(sorted(PIPELINES))


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for one, other in zip(compile_all(tmp_path / "a"), compile_all(tmp_path / "b"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_changed_pipeline_is_seen_as_stale(tmp_path: Path) -> None:
    paths = compile_all(tmp_path)
    paths[0].write_text(paths[0].read_text() + "\n")
    assert stale(tmp_path) == [paths[0].name]
    paths[0].unlink()
    assert stale(tmp_path) == [paths[0].name]


def test_tables_are_made_for_every_component_and_for_the_docs() -> None:
    names = {str(path.relative_to(ROOT)) for path in made_files()}
    assert names == {
        *(f"components/{name}/README.md" for name in STEPS),
        "README.md",
        "docs/cluster.md",
        "docs/configuration.md",
        "docs/data.md",
        "docs/runs.md",
    }
    form = made_files()[ROOT / "docs" / "runs.md"]
    assert all(f"| `{field}` |" in form for fields in FIELDS.values() for field in fields)


@every_pipeline
def test_tasks_are_steps_of_the_catalogue_in_their_images(name: str) -> None:
    assert set(tasks(name)) == TASKS[name]
    executors = document(name)["deploymentSpec"]["executors"]
    for task in tasks(name):
        label = component(name, task)["executorLabel"]
        assert executors[label]["container"]["image"] == f"kubeyolo-{step_of(task).image}:{__version__}", task


@every_pipeline
def test_configure_is_first_and_never_cached_and_everything_waits_for_it(name: str) -> None:
    assert "dependentTasks" not in tasks(name)["configure"]
    later = {after for before, after in CompiledPipeline.named(name).edges if before == "configure"}
    while more := {after for before, after in CompiledPipeline.named(name).edges if before in later} - later:
        later |= more
    assert later == TASKS[name] - {"configure"}
    for task, facts in tasks(name).items():
        assert facts["cachingOptions"] == ({"enableCache": True} if step_of(task).cached else {}), task
    assert not STEPS["configure"].cached


@every_pipeline
def test_nothing_is_left_to_an_exit_handler(name: str) -> None:
    policies = [facts["triggerPolicy"] for _, facts in tasks_of(document(name)) if "triggerPolicy" in facts]
    assert [policy for policy in policies if set(policy) != {"condition"}] == []
    assert len(policies) == (0 if name == DETECTOR_TRAINING else 1)


@every_pipeline
def test_inputs_are_what_the_catalogue_says_and_none_is_the_id_or_the_name_of_the_run(name: str) -> None:
    for task, facts in tasks(name).items():
        parameters = facts["inputs"]["parameters"]
        assert "artifacts" not in facts["inputs"], task
        if task == "configure":
            assert {field: value["componentInputParameter"] for field, value in parameters.items()} == {
                field: field for field in FIELDS[name]
            }
            continue
        assert set(parameters) == {"settings", *step_of(task).inputs}, task
        assert producer(name, task, "settings") == ("configure", task)
        for parameter in step_of(task).inputs:
            assert producer(name, task, parameter)[1] in {"dataset", "backbone", "bundle", "baseline", "record"}, task
        # Neither a constant nor a placeholder, such as that of the id of the run.
        assert all("runtimeValue" not in value for value in parameters.values()), task
    assert "{{$.pipeline_job" not in CompiledPipeline.named(name).text
    told = {task: [each["name"] for each in facts.get("fieldPathAsEnv", [])] for task, facts in pods(name).items()}
    # In the environment, so that it is no input on which a cached result depends.
    assert told == {task: ["KUBEYOLO_RUN_ID"] for task in TASKS[name]}


@every_pipeline
def test_outputs_and_artifacts_are_what_the_catalogue_says(name: str) -> None:
    for task in tasks(name):
        outputs, step = component(name, task)["outputDefinitions"], step_of(task)
        kinds = {key: facts["artifactType"]["schemaTitle"] for key, facts in outputs["artifacts"].items()}
        assert kinds == {artifact.name: f"system.{artifact.kind}" for artifact in step.artifacts}, task
        if task != "configure":
            assert set(outputs["parameters"]) == set(step.outputs), task
        assert outputs["parameters"]["record"]["parameterType"] == "STRING", task


@every_pipeline
def test_artifacts_are_few_and_each_has_a_name_of_its_own(name: str) -> None:
    found = [
        (task, artifact) for task in tasks(name) for artifact in component(name, task)["outputDefinitions"]["artifacts"]
    ]
    counts = Counter(artifact for task, artifact in found if task not in SAME_PROGRAM)
    assert [artifact for artifact, count in counts.items() if count > 1] == []
    # Each is a node of the drawing of Kubeflow's pages, next to the tasks.
    assert len(found) <= 18
    metrics = {
        artifact.name for task in tasks(name) for artifact in step_of(task).artifacts if artifact.kind == "Metrics"
    }
    assert metrics == ({"summary"} if name != MODEL_EVALUATION else set())


@every_pipeline
def test_the_form_has_these_fields_each_with_a_description_and_a_text_as_value(name: str) -> None:
    fields = CompiledPipeline.named(name).fields
    assert set(fields) == FIELDS[name]
    for field, facts in fields.items():
        assert facts["parameterType"] == "STRING", field
        assert facts["description"] == describe_field(field) and len(facts["description"]) > 10, field
    assert {field for field, facts in fields.items() if not facts.get("isOptional")} == REQUIRED[name]
    defaults = {field: facts["defaultValue"] for field, facts in fields.items() if field not in REQUIRED[name]}
    # An empty field says nothing: no number or name stands for the preset's value.
    assert {field: value for field, value in defaults.items() if value} == {
        field: value for field, value in FILLED.items() if field in FIELDS[name]
    }
    assert {field: tuple(facts["literals"]) for field, facts in fields.items() if "literals" in facts} == {
        field: tuple(values) for field, values in LITERALS.items() if field in FIELDS[name]
    }
    description = document(name)["pipelineInfo"]["description"]
    assert description.startswith(PIPELINES[name])
    assert all(f"\n{field}: {describe_field(field)}" in description for field in fields)


def test_the_form_of_a_training_is_short_and_has_every_setting_that_the_schema_marks() -> None:
    assert len(CompiledPipeline.named().fields) <= 14
    marked = set(setting_fields())
    assert marked <= FIELDS[DETECTOR_RETRAINING]
    assert marked - FIELDS[DETECTOR_TRAINING] == {"max_regression", "start_from"}
    both = FIELDS[DETECTOR_TRAINING] & FIELDS[DETECTOR_RETRAINING]
    one, other = CompiledPipeline.named().fields, CompiledPipeline.named(DETECTOR_RETRAINING).fields
    assert {field: one[field] for field in both} == {field: other[field] for field in both}


@every_pipeline
def test_every_setting_of_the_form_is_handed_to_a_step(name: str) -> None:
    reads = {key for task in tasks(name) for key in step_of(task).reads}
    for field, key in setting_fields().items():
        # configure makes its choice a value of train.weights and of pretrain.enabled.
        if field in FIELDS[name] and field != "start_from":
            assert {key, key.partition(".")[0]} & reads, field


@every_pipeline
def test_pods_get_the_store_and_its_keys_and_no_more_rights_than_they_need(name: str) -> None:
    found = pods(name)
    assert set(found) == TASKS[name]
    endpoint = {"MINIO_ENDPOINT": False, "MINIO_SECURE": True, "MINIO_REGION": True, "MINIO_PATIENCE": True}
    for task, facts in found.items():
        assert facts["securityContext"]["runAsNonRoot"] is True, task
        secrets = {one["secretName"]: one for one in facts["secretAsEnv"]}
        store = secrets.pop("mlpipeline-minio-artifact")
        assert {pair["envVar"] for pair in store["keyToEnv"]} == {"MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"}, task
        assert all(one["optional"] for one in secrets.values()), task
        signs = step_of(task).name in PUBLISHING
        assert {pair["envVar"] for one in secrets.values() for pair in one["keyToEnv"]} == (
            {"KUBEYOLO_SIGNING_KEY"} if signs else set()
        ), task
        optional = {pair["envVar"]: one["optional"] for one in facts["configMapAsEnv"] for pair in one["keyToEnv"]}
        expected = endpoint | {"KUBEYOLO_TRUSTED_KEYS": True}
        assert optional == (expected | {"KUBEYOLO_STORE": True} if task == "configure" else expected), task


@every_pipeline
def test_every_step_runs_the_installed_code_without_telemetry_whatever_its_image_sets(name: str) -> None:
    executors = document(name)["deploymentSpec"]["executors"]
    assert len(executors) == len(TASKS[name])
    for executor, facts in executors.items():
        variables = {variable["name"]: variable["value"] for variable in facts["container"]["env"]}
        assert variables.items() >= CONTAINER_VARIABLES.items(), executor


@every_pipeline
def test_steps_that_may_have_a_job_alone_are_tried_again(name: str) -> None:
    retried = {task: facts["retryPolicy"] for task, facts in tasks(name).items() if "retryPolicy" in facts}
    with_jobs = {"pretrain_backbone", "train", "evaluate", "evaluate_baseline", "export_model", "quantize"}
    assert set(retried) == with_jobs & TASKS[name]
    for policy in retried.values():
        # Argo counts the duration from the start of the first try, so it has to be longer than a training.
        assert (policy["maxRetryCount"], policy["backoffMaxDuration"]) == (3, f"{365 * 24 * 3600}s")


@every_pipeline
def test_the_compiled_file_is_small(name: str) -> None:
    assert len(CompiledPipeline.named(name).text) < 72_000
    assert len(json.dumps(document(name))) < 44_000


@every_pipeline
def test_pods_have_the_labels_of_the_network_policy_and_those_that_check_have_the_policy(name: str) -> None:
    found = pods(name)
    assert [task for task, facts in found.items() if facts["podMetadata"]["labels"] != STEP_LABELS] == []
    checking = {task: facts["configMapAsVolume"] for task, facts in found.items() if "configMapAsVolume" in facts}
    having_jobs = {task for task in TASKS[name] if STEPS.get(task, STEPS["evaluate"]).has_job}
    assert set(checking) == {"configure"} | having_jobs
    for (volume,) in checking.values():
        assert (volume["configMapName"], volume["mountPath"]) == (CONFIG_MAP, str(POLICY_FOLDER))
        assert volume["optional"] is True, "without the ConfigMap the default policy applies"

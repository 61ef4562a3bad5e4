"""The manifest of a job: golden files for all presets, and what must hold whatever the settings are."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from kubeyolo.compiled.resources import quantity
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.launch.launcher import VolcanoLauncher, find_launcher
from kubeyolo.launch.manifest import Run, job_manifest, job_name
from kubeyolo.launch.settings import ClusterSettings, cluster_settings
from kubeyolo.processes import CONTAINER_VARIABLES
from kubeyolo.steps.job import StepSpec
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work

GOLDEN = Path(__file__).parent / "golden"


def manifest(processes: int, values: dict[str, Any], **settings: Any) -> dict[str, Any]:
    config = load_config("yolov5n-r7", sets=(f"train.processes={processes}",))
    spec = TrainingSpec(dataset="minio://data/sets/cells-1", output="minio://data/trainings/one", config=config)
    given = {"name": "run-train", "namespace": "kubeflow", "image": "registry/kubeyolo-train@sha256:00", **settings}
    return job_manifest(spec.work(), cluster_settings(values)[1]["train"], **given)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "cpu": (2, {"preset": "cpu"}),
    "ascend910-a3": (32, {"preset": "ascend910-a3", "runtime_class": "ascend"}),
    "ascend910b": (
        16,
        {
            "preset": "ascend910b",
            "queue": "kubeyolo",
            "priority_class": "training",
            "namespace": "kubeyolo-ascend",
            "tolerations": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}],
        },
    ),
}


@pytest.mark.parametrize("preset", CASES)
def test_the_job_of_a_preset_is_the_golden_one(preset: str) -> None:
    """With KUBEYOLO_WRITE_GOLDEN=1 the files are written anew."""
    owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "0000-1111"}
    made = manifest(*CASES[preset], run=Run("run", "kubeflow", owner))
    environment = made["spec"]["tasks"][0]["template"]["spec"]["containers"][0]["env"]
    # The document has every key of the configuration; its own tests hold it.
    document = next(each for each in environment if each["name"] == "KUBEYOLO_WORK")
    work = Work.model_validate_json(document["value"])
    assert (work.step, work.processes) == ("train", CASES[preset][0])
    assert TrainingSpec.model_validate_json(work.document).processes == CASES[preset][0]
    document["value"] = "WORK"
    made["metadata"]["annotations"]["kubeyolo.io/spec"] = "DIGEST"
    path = GOLDEN / f"job-{preset}.yaml"
    if os.environ.get("KUBEYOLO_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert yaml.safe_load(path.read_text()) == made


@pytest.mark.parametrize(
    ("step", "values", "pods", "name"),
    [
        ("evaluate", {"steps": {"evaluate": {"nodes": 2, "devices_per_node": 4}}}, 2, "evaluate-0a1b2c"),
        ("evaluate", {}, 1, "evaluate-0a1b2c"),
        ("export_model", {"nodes": 2}, 1, "export-0a1b2c"),
    ],
)
def test_the_job_of_another_step_has_the_settings_of_that_step(
    step: Literal["evaluate", "export_model"], values: dict[str, Any], pods: int, name: str
) -> None:
    launcher = find_launcher("volcano", {"preset": "ascend910b", **values})
    assert isinstance(launcher, VolcanoLauncher)
    places = {
        "store": "minio://data",
        "output": "minio://data/results/one",
        "bundle": "minio://b",
        "dataset": "minio://d",
    }
    spec = StepSpec(step=step, config=load_config(), code="c", digest="0a1b2c3d4e", **places)
    work, settings = spec.work(launcher.processes(step)), launcher.settings[step]
    made = job_manifest(work, settings, name=job_name("run", work.name), namespace="kubeflow", image="image")
    (task,) = made["spec"]["tasks"]
    devices = settings.devices_per_node
    assert (made["metadata"]["name"], task["replicas"], work.processes) == (f"run-{name}", pods, pods * devices)
    assert pod_of(made)["containers"][0]["resources"]["limits"]["huawei.com/Ascend910"] == str(devices)
    assert Work.model_validate_json(variables_of(made)["KUBEYOLO_WORK"]) == work
    assert StepSpec.model_validate_json(work.document) == spec


def pod_of(made: dict[str, Any]) -> dict[str, Any]:
    return dict(made["spec"]["tasks"][0]["template"]["spec"])


@pytest.mark.parametrize("preset", CASES)
def test_no_secret_value_and_no_token_is_in_it(preset: str) -> None:
    made = manifest(*CASES[preset])
    pod = pod_of(made)
    assert pod["automountServiceAccountToken"] is False
    for variable in pod["containers"][0]["env"]:
        if variable["name"] in ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"):
            assert "value" not in variable and "secretKeyRef" in variable["valueFrom"]
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def variables_of(made: dict[str, Any]) -> dict[str, str]:
    variables = pod_of(made)["containers"][0]["env"]
    return {variable["name"]: variable["value"] for variable in variables if "value" in variable}


@pytest.mark.parametrize("image", ["registry/kubeyolo-train@sha256:00", "elsewhere/mindspore:2.7"])
def test_a_pod_runs_the_installed_code_without_telemetry_whatever_its_image_sets(image: str) -> None:
    assert variables_of(manifest(*CASES["cpu"], image=image)).items() >= CONTAINER_VARIABLES.items()


def test_the_settings_of_a_cluster_win_over_values_of_a_preset_and_not_over_our_variables() -> None:
    environment = {"PYTHONSAFEPATH": "", "ASCEND_WORK_PATH": "/", "HCCL_CONNECT_TIMEOUT": "600", "GLOG_v": "2"}
    variables = variables_of(manifest(8, {"preset": "ascend910b", "environment": environment}))
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["ASCEND_WORK_PATH"] == "/tmp/ascend/work"
    assert (variables["HCCL_CONNECT_TIMEOUT"], variables["GLOG_v"]) == ("600", "2")
    kept = variables_of(manifest(8, {"preset": "ascend910b", "environment": {"GLOG_v": "2"}}))
    assert kept["HCCL_CONNECT_TIMEOUT"] == "1800"


def expanded(variables: list[dict[str, Any]]) -> dict[str, str]:
    """Return the values that Kubernetes gives to the variables of a container."""
    values: dict[str, str] = {}

    def value_of(reference: re.Match[str]) -> str:
        return "$" if reference[0] == "$$" else values.get(reference[1], reference[0])

    for variable in variables:
        values[variable["name"]] = re.sub(r"\$\$|\$\(([^)]*)\)", value_of, variable.get("value", ""))
    return values


@pytest.mark.parametrize("text", ["$(HCCL_Q)", "$$(HCCL_Q)", "$", "$$", "a $(MINIO_ENDPOINT) b", "$(KUBEYOLO_GANG)"])
def test_kubernetes_replaces_nothing_in_the_work_and_the_variables_of_a_job(text: str) -> None:
    code = '","document":"import os","module":"cProfile","memory_remedy":"'
    config = load_config("yolov5n-r7", sets=("train.processes=2",))
    spec = TrainingSpec(dataset=f"minio://data/{text}", output="minio://data/one", config=config)
    settings = cluster_settings({"environment": {"HCCL_Q": code, "HCCL_R": text, "GLOG_v": "2"}})[1]["train"]
    made = job_manifest(spec.work(), settings, name="job", namespace="n", image="image")
    variables = pod_of(made)["containers"][0]["env"]
    assert len({each["name"] for each in variables}) == len(variables)
    values = expanded(variables)
    assert Work.model_validate_json(values["KUBEYOLO_WORK"]) == spec.work()
    assert (values["HCCL_Q"], values["HCCL_R"], values["GLOG_v"]) == (code, text, "2")
    names = [each["name"] for each in variables]
    assert names[-3:] == ["HCCL_Q", "HCCL_R", "GLOG_v"], "no variable of kubeyolo can refer to them"


def test_the_gang_has_as_many_pods_as_the_processes_need() -> None:
    made = manifest(*CASES["ascend910b"])
    assert made["spec"]["minAvailable"] == made["spec"]["tasks"][0]["replicas"] == 2
    resources = pod_of(made)["containers"][0]["resources"]
    assert {**resources["limits"], "cpu": "96"} == resources["requests"]
    assert resources["limits"]["huawei.com/Ascend910"] == "8"


def test_the_workflow_of_another_namespace_is_recorded_and_owns_nothing() -> None:
    run = Run(
        "run", "kubeflow", {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "run", "uid": "0000-1111"}
    )
    made = manifest(*CASES["cpu"], run=run, namespace="kubeyolo-ascend")["metadata"]
    assert "ownerReferences" not in made
    assert made["labels"]["kubeyolo.io/run"] == "run"
    assert made["annotations"]["kubeyolo.io/run-namespace"] == "kubeflow"
    assert made["annotations"]["kubeyolo.io/workflow-uid"] == "0000-1111"


def test_a_job_without_a_run_names_no_workflow() -> None:
    made = manifest(*CASES["cpu"])["metadata"]
    assert "kubeyolo.io/run" not in made["labels"]
    assert list(made["annotations"]) == ["kubeyolo.io/spec"]


def test_settings_add_labels_and_replace_none_of_ours() -> None:
    values = {"labels": {"team": "vision", "app.kubernetes.io/part-of": "vision"}}
    labels = manifest(2, values)["metadata"]["labels"]
    assert (labels["team"], labels["app.kubernetes.io/part-of"]) == ("vision", "kubeyolo")


def test_threads_are_those_of_the_pod_and_not_of_its_node() -> None:
    def threads(**values: Any) -> str:
        environment = pod_of(manifest(4, values))["containers"][0]["env"]
        return next(str(each["value"]) for each in environment if each["name"] == "OMP_NUM_THREADS")

    assert threads(cpu="8") == "8"
    assert threads(cpu="8", devices_per_node=4) == "2"
    assert threads(cpu="500m") == "1"


def test_names_are_stable_short_and_of_one_run_each() -> None:
    assert job_name("detector-training-x7k2p", "train") == "detector-training-x7k2p-train"
    long = [job_name(f"{'a-long-name-of-a-pipeline-' * 3}{end}", "train") for end in ("x", "y")]
    assert len(set(long)) == 2
    # <job>-worker-<n> is the name of a host, of at most 63 letters.
    assert all(len(f"{name}-worker-99") <= 63 for name in long)
    assert job_name("2024_Run.A", "train") == "run-2024-run-a-train"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "ascend910"}, "unknown cluster preset 'ascend910'; did you mean 'ascend910b' or 'ascend910-a3'?"),
        ({"quue": "q"}, "unknown cluster setting 'quue'; did you mean 'queue'?"),
        ({"memory": "much"}, "cluster settings: memory = 'much'"),
        ({"queue_limit": 0}, "cluster settings: queue_limit = 0"),
        ({"tolerations": [{"kee": "x"}]}, "cluster settings: tolerations.0.kee"),
    ],
)
def test_settings_that_are_not_allowed_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        cluster_settings(values)
    assert words in str(caught.value)


def test_pairs_go_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("preset: ascend910b\nqueue: of-the-file\nmemory: 8Gi\n")
    pairs = ("memory=16Gi", "cpu=4", "node_selector={disk: ssd}")
    chosen = cluster_settings(None, file, pairs)[1]["train"]
    assert (chosen.queue, chosen.memory, chosen.cpu) == ("of-the-file", "16Gi", "4")
    assert chosen.node_selector == {"disk": "ssd"}
    assert chosen.device_resource == "huawei.com/Ascend910"
    with pytest.raises(InputError, match="expected key=value"):
        cluster_settings(None, None, ("memory",))


def test_every_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert [name for name in ClusterSettings.model_fields if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("written", "size"),
    [("4Gi", 2**32), ("512Mi", 2**29), ("1.5G", 1.5e9), ("1000000k", 1e9), ("81920000", 8.192e7)],
)
def test_every_unit_of_memory_has_a_size_in_bytes(written: str, size: float) -> None:
    assert quantity(ClusterSettings(memory=written).pod_memory) == pytest.approx(size)

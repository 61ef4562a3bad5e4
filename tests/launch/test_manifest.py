"""The manifest of a job: golden files for both presets, and what must hold whatever the settings are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError
from kubeyolo.launch.manifest import Run, job_manifest, job_name
from kubeyolo.launch.settings import ClusterSettings, cluster_settings
from kubeyolo.training.spec import TrainingSpec

GOLDEN = Path(__file__).parent / "golden"


def manifest(processes: int, values: dict[str, Any], **settings: Any) -> dict[str, Any]:
    config = load_config("yolov5n-r7", sets=(f"train.processes={processes}",))
    spec = TrainingSpec(dataset="minio://data/sets/cells-1", output="minio://data/trainings/one", config=config)
    given = {"name": "run-train", "namespace": "kubeflow", "image": "registry/kubeyolo-train@sha256:00", **settings}
    return job_manifest(spec, cluster_settings(values), **given)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "cpu": (2, {"preset": "cpu"}),
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
    document = next(each for each in environment if each["name"] == "KUBEYOLO_SPEC")
    assert TrainingSpec.model_validate_json(document["value"]).processes == CASES[preset][0]
    document["value"] = "SPEC"
    made["metadata"]["annotations"]["kubeyolo.io/spec"] = "DIGEST"
    path = GOLDEN / f"job-{preset}.yaml"
    if os.environ.get("KUBEYOLO_WRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(made, sort_keys=False))
    assert yaml.safe_load(path.read_text()) == made


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
def test_a_pod_runs_the_installed_code_whatever_its_image_sets(image: str) -> None:
    assert variables_of(manifest(*CASES["cpu"], image=image))["PYTHONSAFEPATH"] == "1"


def test_the_settings_of_a_cluster_win_over_the_variables_of_a_pod() -> None:
    made = manifest(2, {"preset": "cpu", "environment": {"PYTHONSAFEPATH": "", "HCCL_CONNECT_TIMEOUT": "600"}})
    assert variables_of(made)["PYTHONSAFEPATH"] == ""
    assert variables_of(made)["HCCL_CONNECT_TIMEOUT"] == "600"


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
        ({"preset": "ascend"}, "unknown cluster preset 'ascend'; did you mean 'ascend910b'?"),
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
    chosen = cluster_settings(None, file, ("memory=16Gi", "cpu=4", "node_selector={disk: ssd}"))
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
    [("4Gi", 2**32), ("512Mi", 2**29), ("1.5G", 1.5e9), ("1000000k", 1e9), ("8192", 8192), ("5000m", 5)],
)
def test_the_memory_of_a_pod_is_a_number_of_bytes(written: str, size: float) -> None:
    assert ClusterSettings(memory=written).memory_bytes == pytest.approx(size)

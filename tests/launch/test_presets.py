"""The presets of clusters: every step of every compiled pipeline gets the device of its preset, in a job of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.catalogue import STEPS
from kubeyolo.compiled.pipeline import CompiledPipeline, pipeline_names, tasks_of
from kubeyolo.compiled.resources import quantity
from kubeyolo.config.load import load_resolved
from kubeyolo.errors import InputError
from kubeyolo.launch import settings as settings_module
from kubeyolo.launch.launcher import find_launcher
from kubeyolo.launch.manifest import job_manifest, rank_table_manifest
from kubeyolo.launch.settings import ClusterSettings, cluster_presets, cluster_settings
from kubeyolo.steps.job import StepSpec
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work
from tests.kubernetes_server import KubernetesServer

CARDS = "huawei.com/Ascend910"
POLICY = "huawei.com/schedule_policy"
ASCEND = tuple(name for name in cluster_presets() if name.startswith("ascend"))
JOBS = ("pretrain_backbone", "train", "evaluate", "export_model")
OPTIONAL = "quantize"
"""The step that trains only with quantize.method = qat, and has a job only if a setting gives it one."""

ITS_CARDS = {"ascend910b": 8, "ascend910-a3": 16}
DATA: dict[str, str] = {"dataset": "minio://data/sets/cells-1", "output": "minio://data/results/one"}
STEP = {"store": "minio://data", "bundle": "minio://data/bundles/one", "code": "0", "digest": "0123456789ab"}


def work_of(step: str, config: Any, processes: int) -> Work:
    """Return the work with which the launcher is called for a step."""
    tasks = {"pretrain_backbone": "backbone", "train": "detector"}
    if step in tasks:
        return TrainingSpec.model_validate({**DATA, "task": tasks[step], "config": config}).work()
    return StepSpec.model_validate({**DATA, **STEP, "step": step, "config": config}).work(processes)


def steps_in(pipeline: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the containers of a compiled pipeline by their task, for the tasks of steps that may have a job."""
    containers = {}
    for task, document in tasks_of(dict(pipeline)):
        label = pipeline["components"][document["componentRef"]["name"]].get("executorLabel")
        if label:
            container = pipeline["deploymentSpec"]["executors"][label]["container"]
            step = container["args"][-1]
            if step in STEPS and STEPS[step].has_job:
                containers[task] = {**container, "step": step}
    return containers


def walk(pipeline: Mapping[str, Any], preset: str, *sets: str) -> list[str]:
    """Return what is wrong with the devices of the steps of a pipeline that runs with a preset."""
    launcher = find_launcher("volcano", {"preset": preset})
    cards = ITS_CARDS.get(preset, 1)
    resolved = launcher.placed(load_resolved("yolov5n-r7", sets=(f"train.processes={2 * cards}", *sets)))
    containers = steps_in(pipeline)
    steps = [container["step"] for container in containers.values()]
    launcher.check(resolved.config, steps, is_remote=True)
    device = "Ascend" if preset in ASCEND else "CPU"
    problems = []
    for task, container in containers.items():
        step = container["step"]
        if step == OPTIONAL:
            continue
        if "accelerator" in container.get("resources", {}):
            problems.append(f"{task}: the plain pod of the step asks for a device")
        if resolved.config.value(STEPS[step].device_key) != device:
            problems.append(f"{task}: computes on another device than {device}")
        if not launcher.has_job(step):
            problems += [f"{task}: has no job"] if device != "CPU" else []
            continue
        work = work_of(step, resolved.config, launcher.processes(step))
        _, settings = cluster_settings({"preset": preset})
        job = job_manifest(work, settings[step], name=f"run-{work.name}", namespace="trainers", image="trainer:1")
        (template,) = (each["template"] for each in job["spec"]["tasks"])
        limits = template["spec"]["containers"][0]["resources"]["limits"]
        wanted = str(cards if step == "train" else 1)
        if device != "CPU" and limits.get(CARDS) != wanted:
            problems.append(f"{task}: its pods ask for {limits.get(CARDS, 'no')} cards instead of {wanted}")
        if device != "CPU" and POLICY not in template["metadata"].get("annotations", {}):
            problems.append(f"{task}: its scheduler does not learn the kind of server")
    return problems


def pipeline_of(name: str) -> dict[str, Any]:
    return dict(next(yaml.safe_load_all(CompiledPipeline.named(name).text)))


@pytest.mark.parametrize("preset", cluster_presets())
@pytest.mark.parametrize("pipeline", pipeline_names())
def test_every_step_of_a_pipeline_computes_on_the_device_of_the_preset(pipeline: str, preset: str) -> None:
    assert walk(pipeline_of(pipeline), preset) == []


def test_the_walk_sees_every_step_that_may_have_a_job() -> None:
    seen = {each["step"] for name in pipeline_names() for each in steps_in(pipeline_of(name)).values()}
    assert seen == {*JOBS, OPTIONAL} == {step.name for step in STEPS.values() if step.has_job}
    assert "evaluate-baseline" in steps_in(pipeline_of("model-evaluation"))


def without(preset: str, step: str, change: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the presets by one preset with changed settings of a step."""
    source = Path(str(settings_module._PRESETS)) / f"{preset}.yaml"
    values = yaml.safe_load(source.read_text())
    values["steps"][step] = {**values["steps"].get(step, {}), **change}
    (folder / f"{preset}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(settings_module, "_PRESETS", folder)


@pytest.mark.parametrize("step", JOBS)
@pytest.mark.parametrize("preset", ASCEND)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"job": False}, "has no job"),
        ({"device_resource": "", "device_target": "CPU"}, "computes on another device"),
    ],
    ids=["job", "device"],
)
def test_a_preset_without_the_device_of_one_step_fails_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, step: str, change: dict[str, Any], words: str
) -> None:
    without(preset, step, change, tmp_path, monkeypatch)
    problems = walk(pipeline_of("detector-training"), preset)
    assert problems and all(each.startswith(step.replace("_", "-")) for each in problems)
    assert any(words in each for each in problems)


@pytest.mark.parametrize("step", ["pretrain_backbone", "evaluate", "export_model"])
def test_a_plain_pod_that_is_asked_for_a_device_fails_the_walk(step: str) -> None:
    pipeline = pipeline_of("detector-training")
    with pytest.raises(InputError, match=f"the step {step} runs in a pod without devices"):
        walk(pipeline, "cpu", f"{STEPS[step].device_key}=Ascend")
    changed = copy.deepcopy(pipeline)
    label = f"exec-{step.replace('_', '-')}"
    resources = {"accelerator": {"type": CARDS, "count": "1"}}
    changed["deploymentSpec"]["executors"][label]["container"]["resources"] = resources
    assert walk(changed, "cpu") == [f"{step.replace('_', '-')}: the plain pod of the step asks for a device"]


def of(step: str = "train", **values: Any) -> ClusterSettings:
    return cluster_settings(values)[1][step]


@pytest.mark.parametrize("preset", ASCEND)
def test_one_card_asks_for_its_share_of_a_server(preset: str) -> None:
    whole, one = of(preset=preset), of("evaluate", preset=preset)
    cards = ITS_CARDS[preset]
    assert (whole.processors, quantity(whole.pod_memory)) == (cards * one.processors, cards * quantity(one.pod_memory))
    assert (whole.processors, whole.pod_memory) == (96, "512Gi")
    assert of("pretrain_backbone", preset=preset, steps={"pretrain_backbone": {"devices_per_node": cards}}).model_copy(
        update={"nodes": 1, "devices_per_node": 1}
    ) == (of("pretrain_backbone", preset=preset))


def test_sizes_of_a_pod_override_those_of_its_devices() -> None:
    chosen = of(preset="ascend910b", memory="100Gi", per_device={"cpu": "1500m"}, devices_per_node=3)
    assert (chosen.pod_cpu, chosen.pod_memory, chosen.pod_shared_memory) == ("4500m", "100Gi", "24Gi")
    assert of("evaluate", preset="ascend910b", per_device={"memory": "32Gi"}).pod_memory == "32Gi"
    assert of("evaluate", preset="ascend910b", per_device={"memory": "32Gi"}).pod_cpu == "12"


def refusal(**values: Any) -> str:
    with pytest.raises(InputError) as caught:
        of(**values)
    return str(caught.value)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ("chip8-node8", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("chip8-node16", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]),
        ("chip2-node16", [1, 2, 4, 6, 8, 10, 12, 14, 16]),
        ("chip2-node16-sp", [1, 2, 4, 6, 8, 10, 12, 14, 16]),
        ("chip4-node8", [1, 2, 4, 8]),
    ],
)
def test_counts_of_cards_that_the_scheduler_refuses_are_refused_before(policy: str, allowed: list[int]) -> None:
    for cards in range(1, 20):
        values = {"preset": "ascend910b", "annotations": {POLICY: policy}, "devices_per_node": cards}
        if cards in allowed:
            assert of(**values).devices_per_node == cards
        else:
            said = refusal(**values)
            assert said.startswith(f"cluster settings: devices_per_node = {cards}: on ")
            assert said.endswith(f"({POLICY} = {policy}) a pod may have {', '.join(map(str, allowed))} cards")


def test_one_die_is_for_a_job_of_one_pod() -> None:
    one = of("train", preset="ascend910-a3", devices_per_node=1)
    assert one.nodes_for(1) == 1
    with pytest.raises(
        InputError, match="devices_per_node = 1: on A3 servers .* pods of a job of 2 pods may have 2, 4"
    ):
        one.nodes_for(2)
    said = refusal(preset="ascend910-a3", steps={"evaluate": {"nodes": 2}})
    assert said.startswith("cluster settings: steps.evaluate.devices_per_node = 1: on A3 servers")
    assert of("evaluate", preset="ascend910-a3", nodes=2).nodes == 1


def test_older_selectors_name_the_kind_of_server_too() -> None:
    cards = {"device_resource": CARDS, "device_target": "Ascend"}
    old = {**cards, "node_selector": {"accelerator-type": "module-910b-8"}}
    assert of(**old, devices_per_node=5).devices_per_node == 5
    assert "may have 1, 2, 3, 4, 5, 6, 7, 8 cards" in refusal(**old, devices_per_node=9)
    unknown = {**cards, "node_selector": {"accelerator-type": "card-910b-2"}}
    assert of(**unknown, devices_per_node=5).devices_per_node == 5
    # Without either the scheduler takes the servers for the oldest kind.
    assert "may have 1, 2, 4, 8 cards" in refusal(**cards, devices_per_node=5)
    # Other device plugins have other names for their cards, and no such rule.
    cards["device_resource"] = "huawei.com/Ascend910B3"
    assert of(**cards, devices_per_node=5).devices_per_node == 5


@pytest.mark.parametrize("resource", ["huawei.com/Ascend310P", "huawei.com/Ascend310"])
def test_cards_without_mindspore_are_refused_with_what_to_use(resource: str) -> None:
    said = refusal(preset="ascend910b", device_resource=resource)
    assert said.startswith(f"cluster settings: device_resource = {resource!r}: ")
    assert ".om" in said and "MindSpore Lite" in said


def job(processes: int, step: str = "train", **values: Any) -> dict[str, Any]:
    config = load_resolved("yolov5n-r7", sets=(f"train.processes={processes}", "train.device_target=Ascend")).config
    return job_manifest(work_of(step, config, 1), of(step, **values), name="run-train", namespace="n", image="i:1")


def pod_of(made: dict[str, Any]) -> dict[str, Any]:
    return dict(made["spec"]["tasks"][0]["template"]["spec"])


@pytest.mark.parametrize("preset", ASCEND)
def test_a_preset_mounts_nothing_of_the_host(preset: str) -> None:
    pod = pod_of(job(16, preset=preset))
    assert [volume["name"] for volume in pod["volumes"]] == ["scratch", "shared-memory"]
    assert pod["securityContext"]["supplementalGroups"] == [1000]
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "arm64"}
    assert pod["containers"][0]["workingDir"] == "/tmp"
    assert "runtimeClassName" not in pod


def test_the_driver_of_the_host_is_mounted_whole_and_read_only() -> None:
    pod = pod_of(job(8, preset="ascend910b", host_driver=True, runtime_class="runc"))
    paths = [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
    assert paths == [
        "/usr/local/Ascend/driver/lib64",
        "/usr/local/Ascend/driver/version.info",
        "/usr/local/dcmi",
        "/usr/local/bin/npu-smi",
        "/etc/ascend_install.info",
    ]
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in pod["containers"][0]["volumeMounts"]}
    assert all(mounts[path] is True for path in paths)
    assert pod["runtimeClassName"] == "runc"


def test_another_user_is_in_the_password_file_of_the_pod() -> None:
    made = job(8, preset="ascend910b", run_as_user=20001)
    template = made["spec"]["tasks"][0]["template"]
    lines = template["metadata"]["annotations"]["kubeyolo.io/passwd"].splitlines()
    assert "kubeyolo:x:20001:20001:kubeyolo:/tmp:/usr/sbin/nologin" in lines
    (mount,) = (each for each in pod_of(made)["containers"][0]["volumeMounts"] if each["name"] == "users")
    assert (mount["mountPath"], mount["subPath"], mount["readOnly"]) == ("/etc/passwd", "passwd", True)
    assert "kubeyolo.io/passwd" not in made["metadata"]["annotations"]


def test_annotations_are_those_of_the_job_and_its_pods_and_change_its_digest() -> None:
    made = {
        policy: job(16, preset="ascend910-a3", annotations={POLICY: policy}) for policy in ("chip2-node16", "other")
    }
    for policy, each in made.items():
        assert each["metadata"]["annotations"][POLICY] == policy
        assert each["spec"]["tasks"][0]["template"]["metadata"]["annotations"][POLICY] == policy
    digests = {each["metadata"]["annotations"]["kubeyolo.io/spec"] for each in made.values()}
    assert len(digests) == 2
    forged = job(16, preset="ascend910-a3", annotations={"kubeyolo.io/spec": "mine"})
    assert forged["metadata"]["annotations"]["kubeyolo.io/spec"] != "mine"


def test_a_job_for_super_pods_has_its_block() -> None:
    values = {"preset": "ascend910-a3", "annotations": {POLICY: "chip2-node16-sp"}}
    assert job(16, **values)["metadata"]["annotations"]["sp-block"] == "16"
    assert job(4, **values, devices_per_node=4)["metadata"]["annotations"]["sp-block"] == "4"
    with pytest.raises(
        InputError, match=r"annotations: sp-block = '': a job of 2 pods on A3 super pods needs a multiple"
    ):
        job(32, **values)
    for block in ("0", "9" * 5000, "\u0663\u0662", "48x"):
        with pytest.raises(
            InputError, match="annotations: sp-block = .*a job of 2 pods on A3 super pods needs a multiple"
        ):
            job(32, preset="ascend910-a3", annotations={POLICY: "chip2-node16-sp", "sp-block": block})
    values["annotations"] = {POLICY: "chip2-node16-sp", "sp-block": "32"}
    assert job(32, **values)["metadata"]["annotations"]["sp-block"] == "32"
    with pytest.raises(InputError, match="pods of a job of 2 pods may have 16 cards"):
        job(16, **values, devices_per_node=8)


def test_a_job_with_a_rank_table_mounts_it_and_names_its_config_map() -> None:
    made = job(16, preset="ascend910b", rank_table=True)
    pod = pod_of(made)
    (volume,) = (each for each in pod["volumes"] if "configMap" in each)
    assert volume == {"name": "ranktable", "configMap": {"name": "rings-config-run-train"}}
    variables = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert variables["RANK_TABLE_FILE"] == "/user/serverid/devindex/config/hccl.json"
    assert made["spec"]["plugins"]["hcclrank"] == []
    table = rank_table_manifest(made, "1234")
    assert table is not None
    assert table["metadata"]["name"] == "rings-config-run-train"
    assert table["metadata"]["labels"] == {"ring-controller.atlas": "ascend-910b"}
    assert table["metadata"]["ownerReferences"][0]["uid"] == "1234"
    assert table["data"] == {"hccl.json": '{"status": "initializing"}'}


def test_one_process_and_the_default_need_no_rank_table() -> None:
    for made in (job(16, preset="ascend910b"), job(1, "evaluate", preset="ascend910b", rank_table=True)):
        assert rank_table_manifest(made, "1234") is None
        assert "RANK_TABLE_FILE" not in {each["name"] for each in pod_of(made)["containers"][0]["env"]}
        assert "hcclrank" not in made["spec"]["plugins"]
    assert "looks for the label ring-controller.atlas" in refusal(
        preset="ascend910b",
        device_resource="cards.example.com/npu",
        labels={"ring-controller.atlas": ""},
        rank_table=True,
    )


@pytest.mark.parametrize("preset", cluster_presets())
def test_a_restricted_namespace_admits_the_pods_of_a_preset_and_no_driver_of_the_host(
    kubernetes: KubernetesServer, namespace: str, preset: str
) -> None:
    def answer(**values: Any) -> tuple[int, str]:
        step = work_of("train", load_resolved("yolov5n-r7", sets=("train.processes=16",)).config, 1)
        made = job_manifest(step, of(preset=preset, **values), name="run", namespace=namespace, image="i:1")
        template = made["spec"]["tasks"][0]["template"]
        pod = {**template, "metadata": {**template["metadata"], "name": "pod"}}
        status, said = kubernetes.request("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
        return status, str(said.get("message", ""))

    assert answer() == (201, "")
    assert answer(run_as_user=20001) == (201, "")
    status, said = answer(host_driver=True)
    assert status == 403 and "restricted volume types" in said and "hostPath" in said


def jobs_of(values: Mapping[str, Any], *sets: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the pods and cards of each job: as the plan names them, and as the manifests of the jobs have them."""
    launcher = find_launcher("volcano", values)
    config = launcher.placed(load_resolved("yolov5n-r7", sets=sets)).config
    (line,) = launcher.placement(config, JOBS)
    named = dict(part.split(" in ", 1) for part in line.removeprefix("jobs: ").partition(";")[0].split(", "))
    made = {}
    for step, settings in cluster_settings(values)[1].items():
        if step == OPTIONAL:
            continue
        work = work_of(step, config, launcher.processes(step))
        (task,) = job_manifest(work, settings, name="run", namespace="n", image="i:1")["spec"]["tasks"]
        pods, cards = task["replicas"], task["template"]["spec"]["containers"][0]["resources"]["limits"][CARDS]
        each = " each" if pods > 1 else ""
        made[step] = f"{pods} pod{'s' * (pods > 1)} with {cards} Ascend card{'s' * (int(cards) > 1)}{each}"
    return named, made


@pytest.mark.parametrize(
    ("steps", "sets"),
    [
        ({}, ()),
        ({"pretrain_backbone": {"nodes": 2, "devices_per_node": 8}, "train": {"nodes": 3}}, ()),
        ({"pretrain_backbone": {"nodes": 0, "devices_per_node": 8}}, ("pretrain.processes=24", "train.processes=16")),
        ({"pretrain_backbone": {"devices_per_node": 4}, "evaluate": {"nodes": 2, "devices_per_node": 8}}, ()),
        ({"train": {"devices_per_node": 1}, "evaluate": {"devices_per_node": 4}}, ()),
    ],
)
def test_the_plan_names_the_pods_that_the_jobs_have(steps: dict[str, Any], sets: tuple[str, ...]) -> None:
    named, made = jobs_of({"preset": "ascend910b", "steps": steps}, *sets)
    assert named == made and set(named) == set(JOBS)


def test_the_plan_names_two_pods_of_a_pretraining_with_two_workers_each() -> None:
    own = {"job": True, "nodes": 2, "devices_per_node": 2}
    launcher = find_launcher("volcano", {"preset": "cpu", "steps": {"pretrain_backbone": own}})
    config = launcher.placed(load_resolved("yolov5n-r7")).config
    assert config.pretrain.processes == 4
    assert launcher.placement(config, ["pretrain_backbone"])[0].startswith(
        "jobs: pretrain_backbone in 2 pods with 2 workers each; "
    )


@pytest.mark.parametrize("step", ["pretrain_backbone", "train", "evaluate"])
def test_more_processes_than_a_job_may_have_are_refused(step: str) -> None:
    def placed(nodes: int) -> Any:
        own = {"job": True, "nodes": nodes, "devices_per_node": 1024}
        return find_launcher("volcano", {"steps": {step: own}}).placed(load_resolved("yolov5n-r7"))

    placed(64)
    with pytest.raises(
        InputError, match=f"nodes = 65 and devices_per_node = 1024 of the step {step} are 66560 .* at most 65536; lower"
    ):
        placed(65)


def test_values_that_were_chosen_are_kept_and_those_of_a_models_preset_are_not(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {processes: 1}\n")
    launcher = find_launcher("volcano", {"preset": "ascend910b"})
    for resolved in (load_resolved("yolov5s", file), load_resolved("yolov5s", sets=("train.processes=1",))):
        placed = launcher.placed(resolved)
        assert placed.config.train.processes == 1
        with pytest.raises(InputError, match="train.processes is 1, but each pod runs 8 processes"):
            launcher.check(placed.config, ["train"], is_remote=True)
    again = launcher.placed(launcher.placed(load_resolved("yolov5s")))
    assert (again.config.train.processes, again.origins["train.processes"]) == (8, "the cluster preset ascend910b")

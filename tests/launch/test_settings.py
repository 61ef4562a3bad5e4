"""Cluster settings by step: which value wins, and which steps have jobs under which preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import known_keys
from kubeyolo.errors import InputError
from kubeyolo.launch.launcher import LAUNCHERS, VolcanoLauncher, find_launcher
from kubeyolo.launch.settings import JOB_STEPS, cluster_presets, cluster_settings


def volcano(values: dict[str, Any] | None = None, job: str = "", sets: tuple[str, ...] = ()) -> VolcanoLauncher:
    launcher = find_launcher("volcano", values, None, sets, job)
    assert isinstance(launcher, VolcanoLauncher)
    return launcher


def test_a_step_has_the_values_of_its_entry_then_of_its_preset_then_for_all_steps_then_of_the_preset() -> None:
    values: dict[str, Any] = {"preset": "ascend910b", "devices_per_node": 4, "memory": "300Gi", "queue": "all"}
    _, settings = cluster_settings(values)
    # For all steps over the preset, except where the preset has settings of the step.
    assert (settings["train"].devices_per_node, settings["evaluate"].devices_per_node) == (4, 1)
    assert (settings["train"].memory, settings["evaluate"].memory) == ("300Gi", "300Gi")
    assert {each.queue for each in settings.values()} == {"all"}
    assert {each.device_resource for each in settings.values()} == {"huawei.com/Ascend910"}
    _, settings = cluster_settings({**values, "steps": {"evaluate": {"memory": "32Gi", "queue": "short"}}})
    assert (settings["evaluate"].memory, settings["evaluate"].queue) == ("32Gi", "short")
    assert (settings["export_model"].memory, settings["export_model"].queue) == ("300Gi", "all")


def test_pairs_set_values_of_one_step_over_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("queue: of-the-file\nsteps:\n  evaluate: {job: true, nodes: 3, cpu: '2'}\n")
    _, settings = cluster_settings(None, file, ("steps.evaluate.nodes=2", "steps.train.cpu=010", "memory=8Gi"))
    evaluate, train = settings["evaluate"], settings["train"]
    assert (evaluate.job, evaluate.nodes, evaluate.cpu, evaluate.memory) == (True, 2, "2", "8Gi")
    assert (train.nodes, train.cpu, train.queue) == (0, "010", "of-the-file")
    pairs = ("steps={evaluate: {nodes: 4, cpu: '4'}}", "steps.evaluate.nodes=2")
    evaluate = cluster_settings(None, file, pairs)[1]["evaluate"]
    assert (evaluate.job, evaluate.nodes, evaluate.cpu) == (True, 2, "4")


@pytest.mark.parametrize(
    ("values", "sets", "words"),
    [
        (
            {"steps": {"evalute": {}}},
            (),
            "unknown step with a job 'evalute' (from cluster settings: steps); did you mean 'evaluate'?",
        ),
        (
            {"steps": {"publish": {"job": True}}},
            (),
            "unknown step with a job 'publish' (from cluster settings: steps); known: evaluate, ",
        ),
        (
            {"steps": {"evaluate": {"node": 2}}},
            (),
            "unknown cluster setting 'node' (from steps.evaluate); did you mean",
        ),
        (
            {"steps": {"evaluate": {"preset": "cpu"}}},
            (),
            "unknown cluster setting 'preset' (from steps.evaluate); known: ",
        ),
        ({"steps": {"evaluate": True}}, (), "steps.evaluate = True: expected settings, such as {job: true}"),
        ({"steps": ["evaluate"]}, (), "steps = ['evaluate']: expected settings by the name of a step"),
        ({"steps": {"evaluate": {"nodes": -1}}}, (), "cluster settings: steps.evaluate.nodes = -1"),
        ({"nodes": -1}, (), "cluster settings: nodes = -1"),
        (None, ("steps.evalute.nodes=2",), "unknown step with a job 'evalute' (from cluster settings: steps); did"),
        (None, ("steps.evaluate.node=2",), "unknown cluster setting 'node' (from steps.evaluate); did you mean"),
        (None, ("steps.evaluate=2",), "cluster settings: steps.evaluate = 2: expected settings, such as {job: true}"),
        (None, ("steps..job=true",), "unknown step with a job ''"),
        (None, ("evaluate.job=true",), "unknown cluster setting 'evaluate.job'"),
        (None, ("preset=0",), "unknown cluster preset 0; known: ascend910-a3, ascend910b, cpu"),
        ({"preset": 0}, (), "unknown cluster preset 0"),
        ({"preset": False}, (), "unknown cluster preset False"),
        ({"preset": ""}, (), "unknown cluster preset ''"),
        ({"preset": ["cpu"]}, (), "unknown cluster preset ['cpu']"),
        ({"steps": []}, (), "steps = []: expected settings by the name of a step"),
        ({"steps": ""}, (), "steps = : expected settings by the name of a step"),
        ({"steps": 0}, (), "steps = 0: expected settings by the name of a step"),
        ({"steps": False}, (), "steps = False: expected settings by the name of a step"),
        ({"steps": {"export_model": {"nodes": 4}}}, (), "steps.export_model.nodes = 4: this step has one process"),
        (
            None,
            ("steps.export_model.devices_per_node=8",),
            "steps.export_model.devices_per_node = 8: this step has one",
        ),
    ],
)
def test_settings_that_nothing_reads_are_refused_and_named(
    values: dict[str, Any] | None, sets: tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        cluster_settings(values, None, sets)
    assert words in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("preset", "with_jobs"),
    [("cpu", {"train"}), ("ascend910b", {"pretrain_backbone", "train", "evaluate", "export_model"})],
)
def test_a_preset_gives_jobs_to_the_steps_that_need_its_nodes(preset: str, with_jobs: set[str]) -> None:
    launcher = volcano({"preset": preset})
    assert {step for step in JOB_STEPS if launcher.has_job(step)} == with_jobs
    assert not launcher.has_job("quantize")


def test_an_entry_gives_a_job_to_a_step_or_takes_it_away() -> None:
    steps = {"evaluate": {"job": True, "nodes": 3}, "train": {"job": False}}
    launcher = volcano({"preset": "cpu", "steps": steps})
    assert launcher.has_job("evaluate") and not launcher.has_job("train")
    assert (launcher.processes("evaluate"), launcher.processes("train")) == (3, 1)


def test_a_command_gives_its_step_a_job_unless_a_setting_takes_it_away() -> None:
    assert volcano(job="evaluate").has_job("evaluate") and not volcano(job="evaluate").has_job("export_model")
    assert not volcano(job="evaluate", sets=("steps.evaluate.job=false",)).has_job("evaluate")
    assert not volcano({"steps": {"evaluate": {"job": False}}}, "evaluate").has_job("evaluate")


@pytest.mark.parametrize("preset", cluster_presets())
def test_every_step_that_may_have_a_job_has_a_key_for_its_device(preset: str) -> None:
    assert set(JOB_STEPS) == set(cluster_settings({"preset": preset})[1])
    keys = {STEPS[step].device_key for step in JOB_STEPS}
    assert len(keys) == len(JOB_STEPS) and keys <= set(known_keys())
    assert {step.processes_key for step in STEPS.values()} - {""} <= set(known_keys())


def test_no_step_has_a_job_on_this_machine() -> None:
    launcher = LAUNCHERS["local"].configured(None, None, ())
    assert not any(launcher.has_job(step) for step in JOB_STEPS)


FILE = """
labels: {a: of-the-file, b: of-the-file}
environment: {HCCL_A: "1"}
annotations: {sp-block: "16"}
per_device: {cpu: "9", memory: 9Gi}
steps: {evaluate: {job: true, labels: {c: of-the-step}, environment: {HCCL_S: "1"}}}
"""


@pytest.mark.parametrize(
    ("pairs", "step", "key", "value"),
    [
        (("labels={b: mine}",), "train", "labels", {"a": "of-the-file", "b": "mine"}),
        (("labels.b=mine",), "train", "labels", {"a": "of-the-file", "b": "mine"}),
        (("labels={b: mine}", "labels={d: mine}"), "train", "labels", {"a": "of-the-file", "b": "mine", "d": "mine"}),
        (("environment.HCCL_B=0x2",), "train", "environment", {"HCCL_A": "1", "HCCL_B": "0x2"}),
        (
            ("annotations.huawei.com/schedule_policy=chip8-node8",),
            "train",
            "annotations",
            {"sp-block": "16", "huawei.com/schedule_policy": "chip8-node8"},
        ),
        (("per_device={memory: 5Gi}",), "train", "per_device", ("9", "5Gi")),
        (("per_device.cpu=2",), "train", "per_device", ("2", "9Gi")),
        (("steps.evaluate.per_device.cpu=2",), "evaluate", "per_device", ("2", "9Gi")),
        (("steps.evaluate.per_device={cpu: 0.5}",), "evaluate", "per_device", ("0.5", "9Gi")),
        (
            ("steps.evaluate.labels={d: mine}",),
            "evaluate",
            "labels",
            {"a": "of-the-file", "b": "of-the-file", "c": "of-the-step", "d": "mine"},
        ),
        (
            ("steps={evaluate: {environment: {HCCL_B: '2'}}}",),
            "evaluate",
            "environment",
            ["HCCL_A", "HCCL_S", "HCCL_B"],
        ),
        (("steps.evaluate={environment: {HCCL_B: '2'}}",), "evaluate", "environment", ["HCCL_A", "HCCL_S", "HCCL_B"]),
        (("steps={train: {nodes: 1}}",), "evaluate", "job", True),
        (("steps.evaluate={nodes: 3}", "steps.evaluate.cpu=2"), "evaluate", "nodes", 3),
    ],
)
def test_a_pair_keeps_the_keys_that_it_does_not_name(
    tmp_path: Path, pairs: tuple[str, ...], step: str, key: str, value: Any
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE)
    found = getattr(cluster_settings(None, file, pairs)[1][step], key)
    if key == "per_device":
        found = (found.cpu, found.memory)
    assert (list(found) if isinstance(value, list) else found) == value


def test_a_file_goes_over_the_values_of_a_pipeline_by_key(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(FILE)
    values = {"labels": {"z": "of-the-form"}, "steps": {"evaluate": {"nodes": 3}, "train": {"cpu": 2}}}
    _, settings = cluster_settings(values, file)
    assert settings["train"].labels == {"z": "of-the-form", "a": "of-the-file", "b": "of-the-file"}
    assert (settings["evaluate"].nodes, settings["evaluate"].job, settings["train"].cpu) == (3, True, "2")


@pytest.mark.parametrize("key", ["steps.evaluate.job", "steps.evaluate"])
def test_a_key_with_dots_means_the_same_in_a_file_and_in_a_pair(key: str) -> None:
    value: Any = True if key.endswith("job") else {"job": True}
    assert cluster_settings({key: value})[1]["evaluate"].job
    assert cluster_settings({"steps": {"evaluate": {"per_device.cpu": 3}}})[1]["evaluate"].per_device.cpu == "3"


@pytest.mark.parametrize("group", [1000, "1000", [1000]])
def test_a_list_of_one_value_needs_no_brackets(group: Any) -> None:
    settings = cluster_settings({"supplemental_groups": group, "image_pull_secrets": "a,b"})[1]["train"]
    assert (settings.supplemental_groups, settings.image_pull_secrets) == ((1000,), ("a", "b"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        *(
            ({key: text}, f"{key} = '{text}': expected {kind} from ")
            for key, kind, text in [
                ("cpu", "cpu", "0"),
                ("cpu", "cpu", "0m"),
                ("cpu", "cpu", "10001"),
                ("memory", "memory", "0"),
                ("memory", "memory", "16"),
                ("memory", "memory", "0Gi"),
                ("memory", "memory", "1Mi"),
                ("memory", "memory", "65Ti"),
                ("shared_memory", "memory", "0"),
                ("scratch", "memory", "0"),
            ]
        ),
        *(
            ({key: text}, f"{key} = '{text}': '{text}' is not a quantity of ")
            for key, text in [
                ("memory", "100m"),
                ("memory", "16 GB"),
                ("memory", "16gi"),
                ("memory", "1e3Gi"),
                ("memory", "-1"),
                ("memory", "1Pi"),
                ("cpu", "1k"),
                ("cpu", "-1"),
                ("cpu", "1.5m"),
                ("cpu", "²"),
            ]
        ),
        ({"cpu": "9" * 400}, "cpu = '9999"),
        ({"memory": "9" * 5000 + "Ti"}, "expected memory from 64Mi to 64Ti, such as 16Gi"),
        ({"per_device": {"cpu": "9" * 400}}, "per_device.cpu = '9999"),
        ({"per_device": {"cpu": -1}}, "per_device.cpu = -1: '-1' is not a quantity of cpu; write it as 2 or 500m"),
        ({"per_device": {"memory": "9" * 2000 + "Ti"}}, "expected memory from 64Mi to 64Ti"),
        (
            {"per_device": {"memory": "32Ti"}, "devices_per_node": 4},
            "per_device.memory = '32Ti' for 4 devices: expected",
        ),
        ({"memory": 16}, "memory = 16: expected memory from 64Mi to 64Ti, such as 16Gi"),
        ({"memory": " 16Gi"}, "memory = ' 16Gi': ' 16Gi' is not a quantity of memory"),
        ({"memory": "16Gi\n"}, "memory = '16Gi\\n': '16Gi\\n' is not a quantity of memory"),
        ({"queue": None}, "queue = None: there is no value; write one, or leave the key out"),
        ({"per_device": {"cpus": "1"}}, "per_device.cpus = '1': there is no such key"),
        ({"cpu": True}, "cpu = True: expected a text; write the value in quotes"),
        ({"cpu": float("inf")}, "cpu = inf: 'inf' is not a quantity"),
        ({"environment": {"GLOG_v": 2}}, "environment.GLOG_v = 2: expected a text; write the value in quotes"),
        ({"labels": {"a": True}}, "labels.a = True: expected a text; write the value in quotes"),
        ({"labels": ["a"]}, "labels = ['a']: expected keys with values, such as {KEY: VALUE}"),
        ({"per_device": "4Gi"}, "per_device = '4Gi': expected keys with values, such as {cpu: 2, memory: 4Gi}"),
        ({"supplemental_groups": {"a": 1}}, "supplemental_groups = {'a': 1}: expected a list, such as [VALUE]"),
        ({"tolerations": {"key": "a"}}, "tolerations = {'key': 'a'}: expected a list, such as [VALUE]"),
    ],
)
def test_a_value_of_the_wrong_kind_or_size_is_refused_with_what_to_write(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        cluster_settings(values)
    said = str(refused.value)
    assert words in said and "\n" not in said and len(said) < 500
    assert "pattern" not in said and "tuple" not in said


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"cpu": 4}, "4"),
        ({"cpu": 0.5}, "0.5"),
        ({"cpu": "500m"}, "500m"),
        ({"memory": 17179869184}, "17179869184"),
        ({"memory": "1.5Gi"}, "1.5Gi"),
        ({"shared_memory": "64Mi"}, "64Mi"),
        ({"scratch": "64Ti"}, "64Ti"),
    ],
)
def test_numbers_and_quantities_of_kubernetes_are_allowed(values: dict[str, Any], found: str) -> None:
    (key,) = values
    assert getattr(cluster_settings(values)[1]["train"], key) == found


WRONG_NAMES: list[dict[str, Any]] = [
    *({"namespace": text} for text in ("../x", "*", "Foo Bar", "a.b", "a\n", "-a", "a" * 64)),
    *(
        {key: text}
        for key in ("queue", "priority_class", "runtime_class", "store_secret", "store_config")
        for text in ("a b", " a", "a\n", "A", "a/b", "a..b", "a" * 254)
    ),
    *({key: ""} for key in ("queue", "store_secret", "store_config")),
    *({"image_pull_secrets": [text]} for text in ("", "a b", "../a")),
    *(
        {"image": text}
        for text in ("a b", "kubeyolo-train evil", "kubeyolo-train/../evil", "a//b", "/a", "a:", "a@", "a\n", "a:1:2")
    ),
    *(
        {key: {text: "x"}}
        for key in ("labels", "annotations", "node_selector")
        for text in ("", "A B", "a/b/c", "/a", "a/", "a\n", "a" * 64, "../a/b")
    ),
    *({key: {"a": text}} for key in ("labels", "node_selector") for text in ("a b", "a\n", "-", "a" * 64)),
    *(
        {"environment": {text: "x"}}
        for text in ("", "A=B", "A B", "1A", "MS_X=1;MINIO_ENDPOINT", "A\n", "MS_$(A)", "Ä")
    ),
    *({key: {"a": "\0"}} for key in ("annotations", "environment")),
    *({"tolerations": [{"key": text}]} for text in ("a b", "a\n")),
    *(
        {"device_resource": text, "device_target": "Ascend"}
        for text in (
            "memory",
            "cpu",
            "Ascend910",
            "huawei.com/ascend910",
            "Huawei.com/Ascend910",
            " huawei.com/Ascend910",
            "huawei.com/Ascend910\n",
            "huawei.com/",
            "huawei.com/x",
            "kubernetes.io/memory",
            "requests.kubernetes.io/x",
            "a/b/c",
        )
    ),
]


@pytest.mark.parametrize("values", WRONG_NAMES, ids=[repr(each)[:60] for each in WRONG_NAMES])
def test_a_name_that_kubernetes_does_not_have_is_refused(values: dict[str, Any]) -> None:
    key = next(iter(values))
    with pytest.raises(InputError, match=f"^cluster settings: {key}.* = .*(expected|cards are|at most|length)"):
        cluster_settings(values)


@pytest.mark.parametrize(
    "values",
    [
        {"namespace": "kubeyolo-ascend", "queue": "team.a", "priority_class": "high", "runtime_class": "ascend"},
        {"image": "registry.example.com:5000/team/kubeyolo_train:v1.2@sha256:0a1b"},
        {"image": "localhost:5000/kubeyolo-train"},
        {"labels": {"example.com/team": "A_b.c", "empty": ""}, "annotations": {"a.b/c": "any text\nof lines"}},
        {"environment": {"GLOG_v": "2", "_X": "$(A)"}, "node_selector": {"node-role.kubernetes.io/worker": ""}},
        {"tolerations": [{}, {"operator": "Exists"}, {"key": "a.b/c", "value": "d"}], "image_pull_secrets": ["a.b"]},
        *(
            {"device_resource": text, "device_target": "Ascend"}
            for text in ("huawei.com/Ascend910", "huawei.com/Ascend910B3", "npu.example.com/card")
        ),
    ],
)
def test_names_of_kubernetes_are_allowed(values: dict[str, Any]) -> None:
    settings = cluster_settings(values)[1]["train"]
    assert {
        key: settings.model_dump(mode="json", exclude_unset=True)[key] for key in values if key != "tolerations"
    } == {key: value for key, value in values.items() if key != "tolerations"}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"device_target": "Ascend"}, "device_target = Ascend, but device_resource is empty"),
        ({"preset": "ascend910b", "device_resource": ""}, "device_target = Ascend, but device_resource is empty"),
        (
            {"preset": "ascend910b", "device_target": "CPU"},
            "device_resource = 'huawei.com/Ascend910', but device_target is",
        ),
        (
            {"device_resource": "huawei.com/Ascend910"},
            "device_resource = 'huawei.com/Ascend910', but device_target is CPU",
        ),
        (
            {"preset": "ascend910-a3", "steps": {"evaluate": {"device_target": "CPU"}}},
            "steps.evaluate.device_resource = 'huawei.com/Ascend910', but device_target is CPU",
        ),
    ],
)
def test_a_resource_and_a_device_that_do_not_fit_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        cluster_settings(values)
    assert words in str(refused.value)
    both = {"device_target": "CPU", "device_resource": ""}
    assert cluster_settings({"preset": "ascend910b", **both})[1]["train"].device_resource == ""

"""The policy of a cluster: what it refuses by default, what an administrator can allow, and where it is read from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.errors import InputError
from kubeyolo.launch import policy as policies
from kubeyolo.launch.launcher import find_launcher
from kubeyolo.launch.policy import LIMITED, Policy, check_mounted, mounted_policy, read_policy
from kubeyolo.launch.settings import ClusterSettings, cluster_presets, cluster_settings

MANIFEST = Path(__file__).parents[2] / "manifests" / "base" / "policy.yaml"

FREE = {
    *("job", "nodes", "devices_per_node", "device_target", "node_selector", "one_pod_per_host"),
    *("cpu", "memory", "shared_memory", "scratch", "image_pull_policy", "max_retry", "resubmissions", "ttl"),
    *("queue_limit", "run_limit", "rendezvous_limit", "per_device", "rank_table", "evictions"),
}
"""Settings that no policy limits: the queue limits resources, and the rest concerns the job itself alone."""


def check(policy: Policy, **values: Any) -> None:
    policy.check(cluster_settings(values)[1]["train"])


def shipped(**data: str) -> Policy:
    """Return the policy of the manifests."""
    content = yaml.safe_load(MANIFEST.read_text())["data"]
    return read_policy({**content, **data}, home="kubeflow")


def test_every_setting_is_limited_or_free() -> None:
    assert set(ClusterSettings.model_fields) - LIMITED - FREE == set()


def test_the_manifest_has_every_key_and_differs_from_the_default_in_the_places_of_a_cluster() -> None:
    content = yaml.safe_load(MANIFEST.read_text())["data"]
    names = {each for each in Policy.__dataclass_fields__ if each != "home"}
    assert set(content) == names
    default = Policy(home="kubeflow")
    changed = {name for name in names if getattr(shipped(), name) != getattr(default, name)}
    assert changed == {"images", "queues", "stores"}


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"host_driver": True}, "host_driver = /usr/local/Ascend/driver/lib64: the policy of this cluster allows nothing"),
    ({"annotations": {"huawei.com/Ascend910": "Ascend910-0"}}, "annotations: huawei.com/Ascend910 is set by kubeyolo"),
    ({"annotations": {"k8s.v1.cni.cncf.io/networks": "of-hosts"}}, "annotations = k8s.v1.cni.cncf.io/networks"),
    ({"annotations": {"kubeyolo.io/spec": "0"}}, "annotations: kubeyolo.io/spec is set by kubeyolo"),
    ({"runtime_class": "of-others"}, "runtime_class = of-others: the policy of this cluster allows nothing"),
    ({"supplemental_groups": [0]}, "supplemental_groups = 0: the policy of this cluster allows 1000"),
    ({"supplemental_groups": [1000, 998]}, "supplemental_groups = 998"),
    ({"run_as_user": 1}, "run_as_user = 1: the policy of this cluster allows 1000-65535"),
    ({"run_as_user": 100000}, "run_as_user = 100000"),
    ({"store_secret": "kubeconfig-of-admin"}, "store_secret = kubeconfig-of-admin"),
    ({"store_config": "workflow-controller-configmap"}, "store_config = workflow-controller-configmap"),
    ({"image_pull_secrets": ["of-others"]}, "image_pull_secrets = of-others"),
    ({"environment": {"LD_PRELOAD": "/tmp/evil.so"}}, "environment: LD_PRELOAD is set by kubeyolo"),
    ({"environment": {"PYTHONPATH": "/tmp"}}, "environment: PYTHONPATH is set by kubeyolo"),
    ({"environment": {"PATH": "/tmp"}}, "environment: PATH is set by kubeyolo"),
    ({"environment": {"MINIO_ENDPOINT": "evil:9000"}}, "environment: MINIO_ENDPOINT is set by kubeyolo"),
    ({"environment": {"AWS_ENDPOINT_URL": "http://evil"}}, "environment: AWS_ENDPOINT_URL is set by kubeyolo"),
    ({"environment": {"KUBEYOLO_WORK": "{}"}}, "environment: KUBEYOLO_WORK is set by kubeyolo"),
    ({"environment": {"ASCEND_VISIBLE_DEVICES": "0-7"}}, "environment: ASCEND_VISIBLE_DEVICES is set by kubeyolo"),
    (
        {"environment": {"HTTPS_PROXY": "http://evil"}},
        "environment = HTTPS_PROXY: the policy of this cluster allows HC",
    ),
    ({"tolerations": [{"operator": "Exists"}]}, "tolerations = everything: the policy of this cluster allows nothing"),
    ({"tolerations": [{"key": "node-role.kubernetes.io/control-plane"}]}, "tolerations = node-role"),
    ({"priority_class": "system-node-critical"}, "priority_class = system-node-critical"),
    ({"namespace": "kube-system"}, "namespace = kube-system: the policy of this cluster allows kubeflow"),
    ({"queue": "of-others"}, "queue = of-others: the policy of this cluster allows default kubeyolo"),
    ({"image": "evil.example.com/miner"}, "image = evil.example.com/miner"),
    ({"image": "kubeyolo-evil.example.com/any:1"}, "image = kubeyolo-evil.example.com/any:1: the policy of this clu"),
    ({"image": "kubeyolo-evil:5000/any"}, "image = kubeyolo-evil"),
    ({"image": "kubeyolo-evil/any:1"}, "image = kubeyolo-evil/any:1: the policy of this cluster allows kubeyolo-*"),
    (
        {"device_resource": "devices.kubevirt.io/kvm", "device_target": "Ascend"},
        "device_resource = devices.kubevirt.io/kvm: the policy of this cluster allows huawei.com/Ascend*",
    ),
    ({"labels": {"app": "ml-pipeline"}}, "labels = app"),
    ({"labels": {"app.kubernetes.io/component": "minio"}}, "labels: app.kubernetes.io/component is set by kubeyolo"),
    ({"labels": {"kubeyolo.io/run": "of-others"}}, "labels: kubeyolo.io/run is set by kubeyolo"),
    ({"labels": {"volcano.sh/queue-name": "of-others"}}, "labels: volcano.sh/queue-name is set by kubeyolo"),
    ({"steps": {"train": {"supplemental_groups": [6]}}}, "supplemental_groups = 6"),
]


@pytest.mark.parametrize(("values", "words"), HOSTILE, ids=[words.split(":")[0] for _, words in HOSTILE])
def test_a_hostile_setting_is_refused_by_name(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        check(shipped(), **values)
    message = str(caught.value)
    assert f"cluster setting {words}" in message
    assert "\n" not in message
    assert "set by kubeyolo; leave it out" in message or "in the ConfigMap kubeyolo-policy" in message


@pytest.mark.parametrize(
    "values",
    [
        {"image": "kubeyolo-train@sha256:00", "queue": "kubeyolo"},
        {"namespace": "kubeflow", "supplemental_groups": [1000]},
        {"environment": {"HCCL_CONNECT_TIMEOUT": "1800", "GLOG_v": "2"}, "run_as_user": 2000},
        {"labels": {"ring-controller.atlas": "ascend-910b"}},
    ],
)
def test_ordinary_settings_are_allowed(values: dict[str, Any]) -> None:
    check(shipped(), **values)


@pytest.mark.parametrize("preset", cluster_presets())
def test_every_step_of_every_preset_is_allowed(preset: str) -> None:
    for settings in cluster_settings({"preset": preset})[1].values():
        shipped().check(settings)


def test_an_administrator_can_allow_more_but_not_the_names_of_kubeyolo() -> None:
    everything = {name: "*" for name in yaml.safe_load(MANIFEST.read_text())["data"]}
    policy = read_policy({**everything, "users": "1-2147483647", "groups": "0-2147483647"})
    for values, words in HOSTILE:
        if "set by kubeyolo" in words:
            with pytest.raises(InputError, match="is set by kubeyolo"):
                check(policy, **values)
        else:
            check(policy, **values)


@pytest.mark.parametrize(
    ("uri", "is_allowed"),
    [
        ("minio://kubeyolo", True),
        ("minio://kubeyolo/data/cells", True),
        ("s3://kubeyolo/data/cells@sha256:" + "0" * 64, True),
        ("minio://shared/cells/train", True),
        ("minio://shared/cells-of-others", False),
        ("minio://shared", False),
        ("minio://kubeyolo-2/data", False),
        ("minio://team-a", True),
        ("s3://mlpipeline/artifacts", False),
        ("", True),
    ],
)
def test_a_place_is_allowed_with_everything_below_it(uri: str, is_allowed: bool) -> None:
    policy = shipped(stores="minio://kubeyolo\nminio://shared/cells/ minio://team-*")
    if is_allowed:
        policy.check_place("data", uri)
        return
    with pytest.raises(
        InputError, match="data = .*: the policy of this cluster allows minio://kubeyolo .*change stores"
    ):
        policy.check_place("data", uri)


def test_a_wrong_key_of_the_policy_is_named() -> None:
    with pytest.raises(InputError, match="unknown key 'group' .from the ConfigMap kubeyolo-policy.; did you mean"):
        read_policy({"group": "0"})


def test_the_pods_of_a_pipeline_have_the_policy_as_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "policy"
    monkeypatch.setattr(policies, "POLICY_FOLDER", folder)
    monkeypatch.setattr(policies, "mounted_policy", lambda: mounted_policy(folder))
    check_mounted("data", "minio://anywhere")
    assert mounted_policy(folder) is None
    folder.mkdir()
    assert mounted_policy(folder) == Policy(), "an empty folder stands for the default"
    (folder / "..data").mkdir()
    (folder / "stores").write_text("minio://kubeyolo")
    (folder / "groups").write_text("1000 2000\n")
    found = mounted_policy(folder)
    assert found is not None
    assert (found.stores, found.groups, found.mounts) == (("minio://kubeyolo",), ("1000", "2000"), ())
    with pytest.raises(InputError, match="minio://anywhere: the policy of this cluster allows minio://kubeyolo"):
        check_mounted("data", "minio://anywhere")


def test_configure_refuses_a_setting_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from kubeyolo.config.load import load_config

    monkeypatch.setattr("kubeyolo.launch.launcher.mounted_policy", shipped)
    values = {"steps": {"evaluate": {"job": True, "supplemental_groups": [0]}}}
    launcher = find_launcher("volcano", values)
    launcher.check(load_config("yolov5n-r7"), ["train"], is_remote=True)
    with pytest.raises(InputError, match="supplemental_groups = 0"):
        launcher.check(load_config("yolov5n-r7"), ["train", "evaluate"], is_remote=True)


@pytest.mark.parametrize(
    ("words", "image", "is_allowed"),
    [
        ("kubeyolo-*", "kubeyolo-train:1", True),
        ("kubeyolo-*", "kubeyolo-train@sha256:00", True),
        ("kubeyolo-*", "kubeyolo-x/train", False),
        ("kubeyolo-*", "kubeyolo-x:5000/train", False),
        ("registry.example.com/team/kubeyolo-*", "registry.example.com/team/kubeyolo-train:1", True),
        ("registry.example.com/team/kubeyolo-*", "registry.example.com/team/kubeyolo-evil/any", False),
        ("registry.example*", "registry.example.evil.com/any", False),
        ("registry.example.com/*", "registry.example.com/team/kubeyolo-train:1", True),
        ("*", "registry.example.com/team/kubeyolo-train:1", True),
        ("kubeyolo-train", "kubeyolo-train/any", False),
        *(
            (words, image, False)
            for words in ("*", "kubeyolo-*")
            for image in ("kubeyolo-train evil", "kubeyolo-train/../evil", "kubeyolo-train\n", "kubeyolo-train:", "")
        ),
    ],
)
def test_a_word_of_images_allows_images_and_no_registries_or_users(words: str, image: str, is_allowed: bool) -> None:
    settings = ClusterSettings().model_copy(update={"image": image})
    policy = shipped(images=f"other {words}")
    if is_allowed or not image:
        policy.check(settings)
        return
    with pytest.raises(InputError, match="cluster setting image = "):
        policy.check(settings)


@pytest.mark.parametrize("space", [" ", "\n", "\r\n", "\t", " \t\r\n "])
def test_words_are_between_spaces_tabs_and_ends_of_lines(space: str) -> None:
    policy = read_policy(
        {"users": f"5{space}1000-65535{space}", "queues": f"{space}a{space}b", "images": f"a{space}b*"}
    )
    assert (policy.users, policy.queues, policy.images) == (("5", "1000-65535"), ("a", "b"), ("a", "b*"))
    assert read_policy({"queues": "a\u00a0b"}).queues == ("a\u00a0b",), "as the admission policy reads it"


@pytest.mark.parametrize("key", ["users", "groups"])
@pytest.mark.parametrize("word", ["*", "1*", "0x10", "1000-", "-5", "1-2-3", "all", "1_000", "٣", "99999999999"])
def test_users_and_groups_that_are_no_numbers_are_refused(key: str, word: str) -> None:
    with pytest.raises(InputError) as refused:
        read_policy({key: f"1000 {word}"})
    assert f"the ConfigMap kubeyolo-policy: {key} has '{word}': expected numbers and ranges" in str(refused.value)


def test_groups_may_be_a_range() -> None:
    check(shipped(groups="5 1000-1003"), supplemental_groups=[5, 1000, 1003])
    with pytest.raises(InputError, match="supplemental_groups = 1004"):
        check(shipped(groups="5 1000-1003"), supplemental_groups=[1004])

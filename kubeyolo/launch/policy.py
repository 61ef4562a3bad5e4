"""The policy of a cluster: what people who submit runs may choose, and the check of cluster settings and URIs.

The policy is a ConfigMap: each key has a list of words, between spaces, tabs and ends of lines. A word that ends with
``*`` allows everything that starts with it; for users and groups, words are numbers and ranges. Pods of a pipeline have
the ConfigMap as files; a command reads it through the Kubernetes API. A missing ConfigMap or key stands for the
default. The admission policy in ``manifests/`` reads the same ConfigMap, in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kubeyolo.errors import InputError, check_known, one_line
from kubeyolo.launch.ascend import DRIVER_MOUNTS
from kubeyolo.launch.forms import IMAGE
from kubeyolo.launch.settings import STORE_CONFIG, STORE_SECRET, ClusterSettings, Toleration
from kubeyolo.storage.location import BucketLocation
from kubeyolo.storage.place import Place

CONFIG_MAP = "kubeyolo-policy"
POLICY_FOLDER = Path("/etc/kubeyolo/policy")
"""Folder with the ConfigMap in the pods of a pipeline; it is empty if there is no ConfigMap."""

_SPACES = re.compile("[ \\t\\r\\n]+")
_RANGE = re.compile("[0-9]{1,10}(-[0-9]{1,10})?")
_NUMBERS = ("users", "groups")
"""Keys whose words are numbers and ranges."""

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

_RESERVED_DOMAINS = ("kubeyolo.io", "volcano.sh", "kubernetes.io", "k8s.io", "argoproj.io", "kubeflow.org")
_RESERVED_PREFIXES = ("huawei.com/Ascend",)
"""Starts of reserved names: the device plugin takes the cards of a pod from such an annotation."""

_RESERVED_VARIABLES = (
    *("KUBEYOLO_*", "MINIO_*", "AWS_*", "PYTHON*", "LD_*", "PATH", "HOME", "TMPDIR", "SSL_CERT_*", "VC_*"),
    # Container runtimes give devices and folders of the host to a pod with these variables.
    *("ASCEND_VISIBLE_DEVICES", "ASCEND_RUNTIME_*", "ASCEND_ALLOW_LINK", "ASCEND_VNPU_*", "NVIDIA_*", "KUBERNETES_*"),
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What cluster settings may be, and which URIs steps may use; each field is a list of words.

    Attributes:
        namespaces: Namespaces of jobs in addition to that of the run.
        images: Images of trainers. A ``*`` stands for no ``/`` unless it is a word of its own or follows a ``/``.
        image_pull_secrets: Secrets that images are pulled with.
        queues: Queues of Volcano.
        priority_classes: Priority classes.
        runtime_classes: Runtime classes.
        users: Ids of users: numbers, or ranges such as 1000-65535.
        groups: Ids of additional groups, in the same form.
        devices: Resources that pods request for their devices.
        mounts: Files and folders of the host that are mounted read only.
        tolerations: Keys of taints.
        labels: Additional labels of pods.
        annotations: Additional annotations of pods.
        environment: Additional environment variables.
        store_secrets: Secrets with keys of the store.
        store_configs: ConfigMaps with the address of the store.
        stores: URIs of buckets and folders; each includes everything below it.
    """

    namespaces: tuple[str, ...] = ()
    images: tuple[str, ...] = ("*",)
    image_pull_secrets: tuple[str, ...] = ()
    queues: tuple[str, ...] = ("*",)
    priority_classes: tuple[str, ...] = ()
    runtime_classes: tuple[str, ...] = ()
    users: tuple[str, ...] = ("1000-65535",)
    groups: tuple[str, ...] = ("1000",)
    devices: tuple[str, ...] = ("huawei.com/Ascend*",)
    mounts: tuple[str, ...] = ()
    tolerations: tuple[str, ...] = ()
    labels: tuple[str, ...] = ("ring-controller.atlas", "fault-scheduling", "fault-retry-times")
    annotations: tuple[str, ...] = ("huawei.com/schedule_policy", "huawei.com/skip-ascend-plugin", "sp-block")
    environment: tuple[str, ...] = ("HCCL_*", "ASCEND_*", "MS_*", "GLOG_*")
    store_secrets: tuple[str, ...] = (STORE_SECRET,)
    store_configs: tuple[str, ...] = (STORE_CONFIG,)
    stores: tuple[str, ...] = ("*",)
    home: str = field(default="", metadata={"is_list": False})
    """Namespace of the run, in which jobs are always allowed."""

    def check(self, settings: ClusterSettings) -> None:
        """Refuse cluster settings that this policy does not allow.

        Raises:
            InputError: Names the setting, its value, what is allowed, and who can change it.
        """
        for key, value in settings:
            if key not in _CHOICES:
                continue
            name, words_of = _CHOICES[key]
            for word in words_of(value):
                if key == "namespace" and word == self.home:
                    continue
                if is_reserved(key, word):
                    raise InputError(f"cluster setting {key}: {one_line(word, 80)} is set by kubeyolo; leave it out")
                self._check_word(name, f"cluster setting {key}", word)

    def check_place(self, what: str, text: str) -> None:
        """Refuse a URI outside of the buckets and folders of this policy; an empty text is allowed.

        Args:
            what: Name of the data at the URI, for the error.
            text: URI or reference.

        Raises:
            InputError: Names the URI and what is allowed.
        """
        location = Place.of(text).location if text else None
        if not isinstance(location, BucketLocation):
            return
        uri = _plain(location.uri)
        allowed = (_plain(each).rstrip("/") for each in self.stores)
        if not any(uri == each or uri.startswith(f"{each}/") or _matches(uri, each) for each in allowed):
            raise self._refusal("stores", f"{what} = {location.uri}")

    def _check_word(self, name: str, what: str, word: str) -> None:
        matches = _in_range if name in _NUMBERS else _matches_image if name == "images" else _matches
        if not any(matches(word, each) for each in getattr(self, name)):
            raise self._refusal(name, f"{what} = {one_line(word, 200) or 'everything'}")

    def _refusal(self, name: str, what: str) -> InputError:
        allowed = " ".join(getattr(self, name)) or "nothing"
        if name == "namespaces":
            allowed = " ".join((self.home or "that of the run", *self.namespaces))
        return InputError(
            f"{what}: the policy of this cluster allows {allowed}; "
            f"an administrator can change {name} in the ConfigMap {CONFIG_MAP}"
        )


_NAMES = tuple(each.name for each in fields(Policy) if each.metadata.get("is_list", True))


def read_policy(data: Mapping[str, str], home: str = "") -> Policy:
    """Return the policy in the data of a ConfigMap; missing keys have their default.

    Raises:
        InputError: A key is unknown, or a word of users or groups is neither a number nor a range.
    """
    for key in data:
        check_known("key", key, _NAMES, f"the ConfigMap {CONFIG_MAP}")
    words = {key: tuple(filter(None, _SPACES.split(text))) for key, text in data.items()}
    for key in _NUMBERS:
        for word in words.get(key, ()):
            if not _RANGE.fullmatch(word):
                raise InputError(
                    f"the ConfigMap {CONFIG_MAP}: {key} has {one_line(word, 80)!r}: expected numbers and ranges, such "
                    "as 1000-65535; an administrator can change it"
                )
    return Policy(**words, home=home)


def mounted_policy(folder: Path = POLICY_FOLDER) -> Policy | None:
    """Return the policy in the files of this pod; None outside of the pods of a pipeline.

    Raises:
        InputError: A file has an unknown name or cannot be read.
    """
    if not folder.is_dir():
        return None
    try:
        # The kubelet's own files start with two dots.
        files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        data = {path.name: path.read_text(encoding="utf-8") for path in files}
        home = _NAMESPACE_FILE.read_text(encoding="utf-8").strip() if _NAMESPACE_FILE.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}: the policy of this cluster cannot be read: {one_line(error, 200)}") from error
    return read_policy(data, home)


def check_mounted(what: str, text: str) -> None:
    """Refuse a URI that the policy of this pod does not allow; outside of pods every URI is allowed.

    Raises:
        InputError: Names the URI and what is allowed.
    """
    policy = mounted_policy()
    if policy is not None:
        policy.check_place(what, text)


def is_reserved(key: str, word: str) -> bool:
    """Tell whether a name in a cluster setting belongs to kubeyolo or Kubernetes, whatever a policy allows.

    Args:
        key: The setting: ``labels``, ``annotations`` or ``environment``; other settings have no such names.
        word: Name of a label, an annotation or an environment variable.
    """
    if key == "environment":
        return any(_matches(word, each) for each in _RESERVED_VARIABLES)
    if key not in ("labels", "annotations"):
        return False
    domain, slash, _ = word.partition("/")
    is_domain = bool(slash) and any(domain == each or domain.endswith(f".{each}") for each in _RESERVED_DOMAINS)
    return is_domain or word.startswith(_RESERVED_PREFIXES)


def without_reserved(key: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the values of a cluster setting whose names do not belong to kubeyolo or Kubernetes."""
    return {name: value for name, value in values.items() if not is_reserved(key, name)}


def _matches(word: str, pattern: str) -> bool:
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else word == pattern


def _matches_image(word: str, pattern: str) -> bool:
    """Tell whether a word allows an image: ``kubeyolo-*`` allows no image of a registry or user of this name."""
    if not IMAGE.fullmatch(word) or not _matches(word, pattern):
        return False
    is_whole = pattern == "*" or pattern.endswith("/*") or not pattern.endswith("*")
    return is_whole or "/" not in word[len(pattern) - 1 :]


def _in_range(word: str, pattern: str) -> bool:
    first, _, last = pattern.partition("-")
    return int(first) <= int(word) <= int(last or first)


def _plain(uri: str) -> str:
    """Return a URI with one name for both schemes of object stores."""
    return f"minio://{uri.removeprefix('s3://')}" if uri.startswith("s3://") else uri


def _text(value: Any) -> Iterable[str]:
    return (str(value),) if value else ()


def _each(values: Iterable[Any]) -> Iterable[str]:
    return (str(each) for each in values)


def _driver(is_mounted: bool) -> Iterable[str]:
    return DRIVER_MOUNTS if is_mounted else ()


def _taints(values: Iterable[Toleration]) -> Iterable[str]:
    return (each.key for each in values)


_CHOICES: Mapping[str, tuple[str, Callable[[Any], Iterable[str]]]] = {
    "namespace": ("namespaces", _text),
    "image": ("images", _text),
    "image_pull_secrets": ("image_pull_secrets", _each),
    "queue": ("queues", _text),
    "priority_class": ("priority_classes", _text),
    "runtime_class": ("runtime_classes", _text),
    "device_resource": ("devices", _text),
    "labels": ("labels", _each),
    "annotations": ("annotations", _each),
    "tolerations": ("tolerations", _taints),
    "host_driver": ("mounts", _driver),
    "run_as_user": ("users", _text),
    "supplemental_groups": ("groups", _each),
    "environment": ("environment", _each),
    "store_secret": ("store_secrets", _text),
    "store_config": ("store_configs", _text),
}
"""Key of the policy for every cluster setting that a policy limits, and the words in the value of the setting."""

LIMITED = frozenset(_CHOICES)
"""Names of the cluster settings that a policy limits."""

"""Cluster settings, how a training runs on a cluster: presets as YAML, and values over those of the preset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from kubeyolo.config.load import read_mapping
from kubeyolo.config.schema import MOST, MOST_PROCESSES, Section, TrainConfig
from kubeyolo.config.text import read_text
from kubeyolo.errors import InputError, one_line, problem_of, split_pair, suggest
from kubeyolo.storage.location import FileLocation, parse

DEFAULT_PRESET = "cpu"

_PRESETS = resources.files("kubeyolo.launch") / "presets"
_MOST_ID = 2**31 - 1
"""Largest id of a user or a group in Kubernetes."""

_PROCESSORS = r"^[0-9]+(\.[0-9]+)?m?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Toleration(Section):
    """A taint that does not keep the pods from a node."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class ClusterSettings(Section):
    """Where and how the pods of a training run. Secrets are named, never held."""

    namespace: str = Field(default="", description="Namespace of the job; empty takes that of the step or kubeconfig.")
    image: str = Field(default="", description="Image of the trainer; in a pipeline, empty takes that of the step.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When nodes pull the image."
    )
    image_pull_secrets: tuple[str, ...] = Field(default=(), description="Secrets that the image is pulled with.")
    queue: str = Field(default="default", min_length=1, description="Queue of Volcano.")
    priority_class: str = Field(default="", description="Priority class of the job and its pods.")
    nodes: int = Field(
        default=0,
        ge=0,
        le=MOST_PROCESSES,
        description="Pods; 0 takes train.processes / devices_per_node, any other must agree with it.",
    )
    devices_per_node: int = Field(
        default=1, ge=1, le=MOST_PROCESSES, description="Training processes of a pod, one for each device."
    )
    device_resource: str = Field(
        default="", description="Resource that a pod asks for, such as huawei.com/Ascend910; empty for processors."
    )
    device_target: Literal["CPU", "GPU", "Ascend"] = Field(
        default="CPU", description="What train.device_target must be on these nodes."
    )
    cpu: str = Field(
        default="1", pattern=_PROCESSORS, description="Processors that a pod asks for; idle ones it may use as well."
    )
    memory: str = Field(default="4Gi", pattern=_QUANTITY, description="Memory of a pod: request and limit.")
    shared_memory: str = Field(
        default="1Gi", pattern=_QUANTITY, description="Size of /dev/shm, which counts as memory of the pod."
    )
    scratch: str = Field(default="20Gi", pattern=_QUANTITY, description="Size of /tmp, where copies of data sets go.")
    labels: dict[str, str] = Field(default={}, description="More labels of the job and its pods.")
    node_selector: dict[str, str] = Field(default={}, description="Labels that nodes must have.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints of nodes to tolerate: key, operator, value, effect."
    )
    one_pod_per_host: bool = Field(default=False, description="Whether each pod must have a host of its own.")
    driver_mount: str = Field(
        default="", pattern="^(/.*)?$", description="Folder of the host with the driver, mounted read only."
    )
    run_as_user: int = Field(default=10001, ge=1, le=_MOST_ID, description="User and group of the pods.")
    supplemental_groups: tuple[Annotated[int, Field(ge=0, le=_MOST_ID)], ...] = Field(
        default=(), description="More groups, such as that of devices."
    )
    environment: dict[str, str] = Field(default={}, description="More environment variables; no secrets.")
    store_secret: str = Field(
        default="mlpipeline-minio-artifact",
        min_length=1,
        description="Secret with the keys accesskey and secretkey of the store.",
    )
    store_config: str = Field(
        default="kubeyolo-store",
        min_length=1,
        description="ConfigMap with MINIO_ENDPOINT, MINIO_SECURE, MINIO_REGION, MINIO_PATIENCE as pods need them.",
    )
    queue_limit: int = Field(default=3600, ge=1, le=MOST, description="Longest wait for room, in seconds.")
    run_limit: int = Field(default=0, ge=0, le=MOST, description="Longest time of running, in seconds; 0 for none.")
    rendezvous_limit: int = Field(
        default=600, ge=1, le=MOST, description="Longest time in which the pods must find each other, in seconds."
    )
    max_retry: int = Field(
        default=3, ge=0, le=1000, description="Restarts of the gang by Volcano after a pod was lost."
    )
    resubmissions: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="New jobs after all pods have failed at once, which Volcano does not restart.",
    )
    ttl: int = Field(
        default=600,
        ge=600,
        le=MOST,
        description="Seconds that a finished job stays when nobody is left to delete it; longer than the API server "
        "is waited for, so that its end is not missed.",
    )

    @property
    def processors(self) -> float:
        """Processors that a pod asks for, as a number: 0.5 of 500m."""
        return _number(self.cpu)

    @property
    def memory_bytes(self) -> float:
        """Memory of a pod in bytes: 4294967296 of 4Gi."""
        return _number(self.memory)

    def check_processes(self, train: TrainConfig, processes: int) -> None:
        """Refuse a training that does not fit these pods, or that has so many processes.

        Raises:
            InputError: It needs another device, or another number of processes.
        """
        if train.device_target != self.device_target:
            raise InputError(
                f"train.device_target is {train.device_target}, but these nodes are for {self.device_target}; "
                f"set train.device_target={self.device_target}, or choose another preset of the cluster"
            )
        self.nodes_for(processes)

    def for_one_process(self) -> ClusterSettings:
        """Return the settings of a pod with one process, which gets its share of processors and memory of a pod."""
        count = self.devices_per_node
        values: dict[str, Any] = {"nodes": 1, "devices_per_node": 1}
        if count > 1:
            values |= {"cpu": f"{1000 * self.processors / count:.0f}m", "memory": f"{self.memory_bytes / count:.0f}"}
        return self.model_copy(update=values)

    def nodes_for(self, processes: int) -> int:
        """Return the number of pods for this many training processes.

        Raises:
            InputError: The processes do not fit the pods.
        """
        nodes, rest = divmod(processes, self.devices_per_node)
        if rest:
            raise InputError(
                f"train.processes is {processes}, which pods of {self.devices_per_node} devices do not divide; "
                f"set it to a multiple of {self.devices_per_node}, or set devices_per_node of the cluster"
            )
        if self.nodes and self.nodes != nodes:
            total = self.nodes * self.devices_per_node
            raise InputError(
                f"{self.nodes} pods of {self.devices_per_node} devices are {total} training processes, "
                f"but train.processes is {processes}; set train.processes to {total}"
            )
        return nodes


def _number(quantity: str) -> float:
    """Return a quantity of Kubernetes as a number."""
    number = quantity.rstrip("mkKMGTi")
    unit = quantity.removeprefix(number)
    return float(number) / 1000 if unit == "m" else float(number) * _UNITS.get(unit, 1)


def check_reachable(what: str, uri: str) -> None:
    """Refuse a URI that pods cannot read; an empty one is allowed.

    Args:
        what: What the URI points at, for the error.
        uri: The URI.

    Raises:
        InputError: It is a folder of this machine.
    """
    if uri and isinstance(parse(uri), FileLocation):
        raise InputError(
            f"{what} {uri}: pods do not see folders of this machine; store it in minio://bucket/prefix, "
            "which --store names"
        )


def cluster_presets() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(sorted(entry.name[:-5] for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml")))


def cluster_settings(
    values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = ()
) -> ClusterSettings:
    """Return the settings of a preset, with values over them.

    Args:
        values: Values by key, as a pipeline passes them; ``preset`` names the preset.
        file: YAML file of such values.
        sets: ``key=value`` pairs over those of the file.

    Raises:
        InputError: An unknown preset or key, or a value that is not allowed.
    """
    chosen: dict[str, Any] = {**(values or {})}
    if file is not None:
        chosen |= read_mapping(file, "cluster settings")
    chosen |= _pairs(sets)
    name = chosen.pop("preset", None) or DEFAULT_PRESET
    if name not in cluster_presets():
        raise InputError(f"unknown preset {name!r} of the cluster{suggest(str(name), cluster_presets())}")
    known = tuple(ClusterSettings.model_fields)
    for key in chosen:
        if key not in known:
            raise InputError(f"unknown key {key!r} of the cluster settings{suggest(str(key), (*known, 'preset'))}")
    preset = yaml.safe_load((_PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))
    try:
        return ClusterSettings.model_validate({**preset, **chosen})
    except ValidationError as error:
        wrong = problem_of(error)
        meaning = ClusterSettings.model_fields[wrong.key.partition(".")[0]].description
        raise InputError(f"cluster settings: {wrong.key} = {wrong.value!r}: {wrong.reason} ({meaning})") from error


def _pairs(sets: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for pair in sets:
        key, text = split_pair(pair, "--cluster-set", "queue=training")
        # Quantities and names are texts, however much they look like numbers.
        field = ClusterSettings.model_fields.get(key)
        is_text = field is not None and field.annotation is str
        values[key] = text if is_text else read_text(text, f"--cluster-set {one_line(pair, 80)!r}")
    return values

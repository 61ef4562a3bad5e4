"""Cluster settings, which control how a training runs on a cluster: YAML presets, and values that override them."""

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
from kubeyolo.errors import InputError, check_known, one_line, problem_of, split_pair
from kubeyolo.storage.location import FileLocation, parse

DEFAULT_PRESET = "cpu"

_PRESETS = resources.files("kubeyolo.launch") / "presets"
_MOST_ID = 2**31 - 1
"""Largest id of a user or a group in Kubernetes."""

_PROCESSORS = r"^[0-9]+(\.[0-9]+)?m?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"
_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class Toleration(Section):
    """A taint of nodes that the pods tolerate."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class ClusterSettings(Section):
    """Where and how the pods of a training are run. Secrets are referred to by name, never stored."""

    namespace: str = Field(
        default="", description="Namespace of the job; if empty, the namespace of the step or of the kubeconfig."
    )
    image: str = Field(default="", description="Image of the trainer; if empty in a pipeline, the image of the step.")
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
        description="Number of pods: train.processes / devices_per_node, or 0 to compute this number.",
    )
    devices_per_node: int = Field(
        default=1, ge=1, le=MOST_PROCESSES, description="Training processes of a pod, one for each device."
    )
    device_resource: str = Field(
        default="", description="Resource that a pod requests, such as huawei.com/Ascend910; empty if none is used."
    )
    device_target: Literal["CPU", "GPU", "Ascend"] = Field(
        default="CPU", description="Required value of train.device_target on these nodes."
    )
    cpu: str = Field(
        default="1", pattern=_PROCESSORS, description="Processors that a pod requests; it may also use idle processors."
    )
    memory: str = Field(default="4Gi", pattern=_QUANTITY, description="Memory of a pod: request and limit.")
    shared_memory: str = Field(
        default="1Gi", pattern=_QUANTITY, description="Size of /dev/shm, which counts as memory of the pod."
    )
    scratch: str = Field(
        default="20Gi", pattern=_QUANTITY, description="Size of /tmp, where copies of data sets are stored."
    )
    labels: dict[str, str] = Field(default={}, description="Additional labels of the job and its pods.")
    node_selector: dict[str, str] = Field(default={}, description="Labels that nodes must have.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints of nodes to tolerate: key, operator, value, effect."
    )
    one_pod_per_host: bool = Field(default=False, description="Whether each pod needs a separate host.")
    driver_mount: str = Field(
        default="", pattern="^(/.*)?$", description="Folder of the host with the driver, mounted read only."
    )
    run_as_user: int = Field(default=10001, ge=1, le=_MOST_ID, description="User and group of the pods.")
    supplemental_groups: tuple[Annotated[int, Field(ge=0, le=_MOST_ID)], ...] = Field(
        default=(), description="Additional groups, such as the group of the devices."
    )
    environment: dict[str, str] = Field(default={}, description="Additional environment variables; no secrets.")
    store_secret: str = Field(
        default="mlpipeline-minio-artifact",
        min_length=1,
        description="Secret with the keys accesskey and secretkey of the store.",
    )
    store_config: str = Field(
        default="kubeyolo-store",
        min_length=1,
        description="ConfigMap with MINIO_ENDPOINT, MINIO_SECURE, MINIO_REGION, MINIO_PATIENCE for the pods.",
    )
    queue_limit: int = Field(default=3600, ge=1, le=MOST, description="Longest wait in the queue, in seconds.")
    run_limit: int = Field(default=0, ge=0, le=MOST, description="Longest running time, in seconds; 0 for no limit.")
    rendezvous_limit: int = Field(
        default=600, ge=1, le=MOST, description="Longest time in which the pods must find each other, in seconds."
    )
    max_retry: int = Field(
        default=3, ge=0, le=1000, description="How often Volcano may restart the gang after a pod was lost."
    )
    resubmissions: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="How often to submit a new job after all pods failed at once; Volcano does not restart such a job.",
    )
    ttl: int = Field(
        default=600,
        ge=600,
        le=MOST,
        description="Seconds that a finished job is kept if its launcher does not delete it; longer than a launcher "
        "waits for the API server, so that it does not miss the end of the job.",
    )

    @property
    def processors(self) -> float:
        """Processors that a pod requests, as a number: 0.5 for 500m."""
        return _number(self.cpu)

    @property
    def memory_bytes(self) -> float:
        """Memory of a pod in bytes: 4294967296 for 4Gi."""
        return _number(self.memory)

    def check_processes(self, train: TrainConfig, processes: int) -> None:
        """Refuse a training that does not fit these pods.

        Raises:
            InputError: It needs a different device, or a different number of processes.
        """
        if train.device_target != self.device_target:
            raise InputError(
                f"train.device_target is {train.device_target}, but these nodes are for {self.device_target}; "
                f"set train.device_target={self.device_target}, or choose a different preset of the cluster"
            )
        self.nodes_for(processes)

    def for_one_process(self) -> ClusterSettings:
        """Return the settings of one pod with one process, which gets its share of a pod's processors and memory."""
        count = self.devices_per_node
        values: dict[str, Any] = {"nodes": 1, "devices_per_node": 1}
        if count > 1:
            values |= {"cpu": f"{1000 * self.processors / count:.0f}m", "memory": f"{self.memory_bytes / count:.0f}"}
        return self.model_copy(update=values)

    def nodes_for(self, processes: int) -> int:
        """Return the number of pods for a number of training processes.

        Raises:
            InputError: The processes do not fit the pods.
        """
        nodes, rest = divmod(processes, self.devices_per_node)
        if rest:
            raise InputError(
                f"train.processes is {processes}, but each pod runs {self.devices_per_node} training processes; "
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
    """Return a Kubernetes quantity as a number."""
    number = quantity.rstrip("mkKMGTi")
    unit = quantity.removeprefix(number)
    return float(number) / 1000 if unit == "m" else float(number) * _UNITS.get(unit, 1)


def check_reachable(what: str, uri: str) -> None:
    """Refuse a URI that pods cannot read; an empty URI is allowed.

    Args:
        what: Name of the data at the URI, for the error.
        uri: The URI.

    Raises:
        InputError: The URI is a folder on this machine.
    """
    if uri and isinstance(parse(uri), FileLocation):
        raise InputError(
            f"{what} {uri}: pods cannot read folders on this machine; use an object store with "
            "--store minio://bucket/prefix"
        )


def cluster_presets() -> tuple[str, ...]:
    """Return the names of the presets."""
    return tuple(sorted(entry.name[:-5] for entry in _PRESETS.iterdir() if entry.name.endswith(".yaml")))


def cluster_settings(
    values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = ()
) -> ClusterSettings:
    """Return the settings of a preset, overridden by values.

    Args:
        values: Values by key, as a pipeline passes them; ``preset`` names the preset.
        file: YAML file with values by key.
        sets: ``key=value`` pairs that override the file.

    Raises:
        InputError: An unknown preset or key, or a value that is not allowed.
    """
    chosen: dict[str, Any] = {**(values or {})}
    if file is not None:
        chosen |= read_mapping(file, "cluster settings")
    chosen |= _pairs(sets)
    name = chosen.pop("preset", None) or DEFAULT_PRESET
    check_known("cluster preset", name, cluster_presets())
    for key in chosen:
        check_known("cluster setting", key, (*ClusterSettings.model_fields, "preset"))
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
        # Quantities and names are strings, even if they look like numbers.
        field = ClusterSettings.model_fields.get(key)
        is_text = field is not None and field.annotation is str
        values[key] = text if is_text else read_text(text, f"--cluster-set {one_line(pair, 80)!r}")
    return values

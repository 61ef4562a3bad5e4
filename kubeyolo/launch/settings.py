"""Cluster settings, which control how jobs of steps run on a cluster: YAML presets, and values that override them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from kubeyolo.catalogue import STEPS
from kubeyolo.compiled.resources import quantity, quantity_problem, times
from kubeyolo.config.load import read_mapping
from kubeyolo.config.section import MOST, MOST_PROCESSES, DeviceTarget, Section
from kubeyolo.errors import InputError, check_known
from kubeyolo.launch import ascend, forms
from kubeyolo.launch.sources import Known, Source, merged, pairs_of, refusal, source_of
from kubeyolo.storage.location import FileLocation, parse

DEFAULT_PRESET = "cpu"

STORE_SECRET = "mlpipeline-minio-artifact"
"""Secret of Kubeflow with the keys of the object store."""

STORE_CONFIG = "kubeyolo-store"
"""ConfigMap with the address of the object store for pods."""

_PRESETS = Path(__file__).with_name("presets")
JOB_STEPS = tuple(step.name for step in STEPS.values() if step.has_job)
"""Names of the steps that may have a job."""

_SEVERAL = ("nodes", "devices_per_node")
_MOST_ID = 2**31 - 1
"""Largest id of a user or a group in Kubernetes."""


class Toleration(Section):
    """A taint of nodes that the pods tolerate."""

    key: forms.KeyOrNone = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: forms.LabelValue = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class DeviceShare(Section):
    """What a pod requests for each of its devices."""

    cpu: forms.Processors = "1"
    memory: forms.Memory = "4Gi"
    shared_memory: forms.Memory = "1Gi"


class ClusterSettings(Section):
    """Where and how the pods of a job are run. Secrets are referred to by name, never stored."""

    job: bool = Field(default=True, description="Whether the step has a job of its own, or runs in its own pod.")
    namespace: forms.Namespace = Field(
        default="", description="Namespace of the job; if empty, the namespace of the step or of the kubeconfig."
    )
    image: forms.Image = Field(
        default="", description="Image of the pods; if empty in a pipeline, the image of the step."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When nodes pull the image."
    )
    image_pull_secrets: tuple[forms.Name, ...] = Field(default=(), description="Secrets that the image is pulled with.")
    queue: forms.Name = Field(default="default", description="Queue of Volcano.")
    priority_class: forms.NameOrNone = Field(default="", description="Priority class of the job and its pods.")
    nodes: int = Field(
        default=0,
        ge=0,
        le=MOST_PROCESSES,
        description="Number of pods; 0 to compute it: the number of processes / devices_per_node.",
    )
    devices_per_node: int = Field(
        default=1, ge=1, le=MOST_PROCESSES, description="Processes of a pod, one for each device."
    )
    device_resource: forms.Device = Field(
        default="", description="Resource that a pod requests, such as huawei.com/Ascend910; empty if none is used."
    )
    device_target: DeviceTarget = Field(default="CPU", description="Device of these nodes.")
    per_device: DeviceShare = Field(
        default=DeviceShare(),
        description="Processors, memory and /dev/shm of a pod for each of its devices: cpu, memory, shared_memory.",
    )
    cpu: forms.ProcessorsOrNone = Field(
        default="",
        description="Processors that a pod requests; it may also use idle processors. If empty, those of its devices.",
    )
    memory: forms.MemoryOrNone = Field(
        default="",
        description="Memory of a pod: request and limit. If empty, that of its devices.",
    )
    shared_memory: forms.MemoryOrNone = Field(
        default="",
        description="Size of /dev/shm, which counts as memory of the pod. If empty, that of its devices.",
    )
    scratch: forms.Memory = Field(default="20Gi", description="Size of /tmp, where copies of data sets are stored.")
    labels: dict[forms.Key, forms.LabelValue] = Field(
        default={}, description="Additional labels of the job and its pods."
    )
    annotations: dict[forms.Key, forms.Text] = Field(
        default={}, description="Additional annotations of the job and its pods."
    )
    node_selector: dict[forms.Key, forms.LabelValue] = Field(default={}, description="Labels that nodes must have.")
    tolerations: tuple[Toleration, ...] = Field(
        default=(), description="Taints of nodes to tolerate: key, operator, value, effect."
    )
    one_pod_per_host: bool = Field(default=False, description="Whether each pod needs a separate host.")
    runtime_class: forms.NameOrNone = Field(default="", description="Runtime class of the pods, such as ascend.")
    host_driver: bool = Field(
        default=False,
        description="Whether the driver of the host is mounted, read only: for nodes without a container runtime of "
        "Ascend.",
    )
    rank_table: bool = Field(
        default=False,
        description="Whether MindCluster's operator makes the rank table of the job; otherwise its processes find "
        "each other without one.",
    )
    run_as_user: int = Field(default=10001, ge=1, le=_MOST_ID, description="User and group of the pods.")
    supplemental_groups: tuple[Annotated[int, Field(ge=0, le=_MOST_ID)], ...] = Field(
        default=(), description="Additional groups, such as the group of the devices."
    )
    environment: dict[forms.Variable, forms.Text] = Field(
        default={}, description="Additional environment variables, except those of the job itself; no secrets."
    )
    store_secret: forms.Name = Field(
        default=STORE_SECRET,
        description="Secret with the keys accesskey and secretkey of the store.",
    )
    store_config: forms.Name = Field(
        default=STORE_CONFIG,
        description="ConfigMap with MINIO_ENDPOINT, MINIO_SECURE, MINIO_REGION, MINIO_PATIENCE for the pods.",
    )
    queue_limit: int = Field(default=3600, ge=1, le=MOST, description="Longest wait in the queue, in seconds.")
    run_limit: int = Field(default=0, ge=0, le=MOST, description="Longest running time, in seconds; 0 for no limit.")
    rendezvous_limit: int = Field(
        default=600, ge=1, le=MOST, description="Longest time in which the pods must find each other, in seconds."
    )
    max_retry: int = Field(
        default=3, ge=0, le=1000, description="How often Volcano may restart the gang after a pod failed."
    )
    resubmissions: int = Field(
        default=2,
        ge=0,
        le=1000,
        description="How often to submit a new job after all pods failed at once; Volcano does not restart such a job.",
    )
    evictions: int = Field(
        default=10,
        ge=0,
        le=1000,
        description="How often to submit a new job after a pod was evicted, preempted, deleted or stopped by a signal.",
    )
    ttl: int = Field(
        default=600,
        ge=600,
        le=MOST,
        description="Seconds that a finished job is kept if its launcher does not delete it; longer than a launcher "
        "waits for the API server, so that it does not miss the end of the job.",
    )

    @property
    def pod_cpu(self) -> str:
        """Processors that a pod requests, as a quantity: 96 for 8 devices of 12."""
        return self.cpu or times(self.per_device.cpu, self.devices_per_node)

    @property
    def pod_memory(self) -> str:
        """Memory of a pod, as a quantity: 512Gi for 8 devices of 64Gi."""
        return self.memory or times(self.per_device.memory, self.devices_per_node)

    @property
    def pod_shared_memory(self) -> str:
        """Size of /dev/shm of a pod, as a quantity."""
        return self.shared_memory or times(self.per_device.shared_memory, self.devices_per_node)

    @property
    def processors(self) -> float:
        """Processors that a pod requests, as a number: 0.5 for 500m."""
        return quantity(self.pod_cpu)

    @property
    def processes(self) -> int:
        """Number of processes of all pods, for a step whose configuration does not set it."""
        return max(1, self.nodes) * self.devices_per_node

    def check_device(self, key: str, device_target: str) -> None:
        """Refuse a device that these nodes do not have.

        Args:
            key: Key of the configuration that sets the device.
            device_target: Its value.

        Raises:
            InputError: The nodes have a different device.
        """
        if device_target != self.device_target:
            raise InputError(
                f"{key} is {device_target}, but these nodes are for {self.device_target}; leave it out, set "
                f"{key}={self.device_target}, or choose a different preset of the cluster"
            )

    def check_cards(self, pods: int) -> None:
        """Refuse cards that the scheduler refuses only after the submission, and cards that MindSpore cannot use.

        Args:
            pods: Number of pods; 0 if it is not known yet.

        Raises:
            InputError: Names the setting, its value and the values that are allowed.
        """
        ascend.check_resource(self.device_resource)
        if self.device_resource == ascend.CARDS:
            policy = ascend.schedule_policy(self.annotations, self.node_selector)
            block = self.annotations.get(ascend.SUPER_POD_BLOCK, "")
            ascend.check_cards(policy, pods, self.devices_per_node, block)
        if self.rank_table and not self.labels.get(ascend.RANK_TABLE_LABEL):
            raise InputError(
                f"rank_table = True: the operator that makes it looks for the label {ascend.RANK_TABLE_LABEL}; set it "
                "in labels, such as ascend-910b"
            )

    def check_resource(self) -> None:
        """Refuse a resource and a device that do not fit each other, and pods that no node has room for.

        Raises:
            InputError: Names the settings, their values and what to do.
        """
        target, resource = self.device_target, self.device_resource
        if target == "Ascend" and not resource:
            raise InputError(
                f"device_target = {target}, but device_resource is empty, so that pods get no card; set it to "
                f"{ascend.CARDS}, or choose a preset for Ascend"
            )
        if target == "CPU" and resource:
            raise InputError(
                f"device_resource = {resource!r}, but device_target is {target}, so that cards stay idle; set "
                "device_resource to an empty text, or device_target to Ascend"
            )
        for name, text in (
            ("cpu", self.pod_cpu),
            ("memory", self.pod_memory),
            ("shared_memory", self.pod_shared_memory),
        ):
            if problem := quantity_problem(text, name, may_have_decimals=True):
                each = getattr(self.per_device, name)
                raise InputError(f"per_device.{name} = {each!r} for {self.devices_per_node} devices: {problem}")

    def nodes_for(self, processes: int, key: str = "") -> int:
        """Return the number of pods for a number of processes.

        Args:
            processes: Number of processes.
            key: Key of the configuration that sets it, for the error; empty if no key does.

        Raises:
            InputError: The processes do not fit the pods.
        """
        key = key or "the number of processes"
        nodes, rest = divmod(processes, self.devices_per_node)
        if rest:
            raise InputError(
                f"{key} is {processes}, but each pod runs {self.devices_per_node} processes; "
                f"set it to a multiple of {self.devices_per_node}, or set devices_per_node of the cluster"
            )
        if self.nodes and self.nodes != nodes:
            total = self.nodes * self.devices_per_node
            raise InputError(
                f"{self.nodes} pods of {self.devices_per_node} devices are {total} processes, "
                f"but {key} is {processes}; set {key} to {total}"
            )
        self.check_cards(nodes)
        return nodes


_TEXTS = frozenset(name for name, field in ClusterSettings.model_fields.items() if field.annotation is str)
"""Settings whose values are texts, even if they look like numbers."""


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
    values: Mapping[str, Any] | None = None, file: Path | None = None, sets: Sequence[str] = (), job: str = ""
) -> tuple[str, dict[str, ClusterSettings]]:
    """Return the name of the preset, and the settings of every step that may have a job, by the name of the step.

    The settings of a step are, each overriding those before it: the preset, ``values`` for all steps, the preset's
    settings of this step, and the step's entry of ``steps`` in ``values``.

    Args:
        values: Values by key, as a pipeline passes them; ``preset`` names the preset, ``steps`` has values by step.
        file: YAML file with values by key.
        sets: ``key=value`` pairs that override the file.
        job: Name of a step that has a job unless a setting says otherwise.

    Raises:
        InputError: An unknown preset, step or key, or a value that is not allowed.
    """
    known = Known(frozenset(ClusterSettings.model_fields), _TEXTS, JOB_STEPS)
    chosen = source_of(values or {}, known)
    if file is not None:
        chosen = source_of(read_mapping(file, "cluster settings"), known).over(chosen)
    chosen = pairs_of(sets, known).over(chosen)
    common = {key: value for key, value in chosen.common.items() if key != "preset"}
    name = chosen.common.get("preset")
    name = DEFAULT_PRESET if name is None else name
    check_known("cluster preset", name, cluster_presets())
    preset = source_of(read_mapping(_PRESETS / f"{name}.yaml", "preset"), known)
    if job:
        preset = Source({}, {job: {"job": True}}).over(preset)
    settings = {}
    for step in JOB_STEPS:
        own = chosen.of(step)
        values = merged(preset.common, common, preset.of(step), own)
        if STEPS[step].is_alone:
            _refuse_several(step, own)
            values |= dict.fromkeys(_SEVERAL, 1)
        settings[step] = _validated(values, f"steps.{step}." if own else "")
    return name, settings


def _refuse_several(step: str, own: Mapping[str, Any]) -> None:
    """Refuse settings of several processes that are meant for a step of one process alone."""
    for key in _SEVERAL:
        if own.get(key, 1) not in (0, 1):
            raise InputError(
                f"cluster settings: steps.{step}.{key} = {own[key]}: this step has one process in one pod; leave it out"
            )


def _validated(values: Mapping[str, Any], prefix: str) -> ClusterSettings:
    try:
        settings = ClusterSettings.model_validate(values)
    except ValidationError as error:
        meanings = {name: field.description or "" for name, field in ClusterSettings.model_fields.items()}
        raise refusal(error, prefix, meanings) from error
    if settings.job:
        try:
            settings.check_cards(settings.nodes)
            settings.check_resource()
        except InputError as error:
            raise InputError(f"cluster settings: {prefix}{error}") from None
    return settings

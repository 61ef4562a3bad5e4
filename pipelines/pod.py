"""The pods of the steps: their environment, requests and limits, and retries of lost pods."""

from kfp import kubernetes
from kfp.dsl import PipelineTask

from kubeyolo.catalogue import STEPS, Resources
from kubeyolo.index import RUN_ID, STORE
from kubeyolo.launch.policy import CONFIG_MAP, POLICY_FOLDER
from kubeyolo.launch.settings import STORE_CONFIG, STORE_SECRET
from kubeyolo.processes import CONTAINER_VARIABLES
from kubeyolo.signing import SIGNING_KEY, TRUSTED_KEYS

_SIGNING_SECRET, _SIGNING_SECRET_KEY = "kubeyolo-signing", "signing-key.pem"
_PUBLISHES_BUNDLES = ("pretrain_backbone", "train", "export_model", "quantize", "publish", "promote")

STEP_LABELS = {"app.kubernetes.io/part-of": "kubeyolo", "app.kubernetes.io/component": "step"}
"""Labels of the pods of all steps."""


def prepare(task: PipelineTask) -> None:
    """Set up the pod of a step as its catalogue entry requires; runs on one machine ignore these settings."""
    step = STEPS.get(task.name.replace("-", "_"), STEPS["evaluate"])
    _set_environment(task)
    if step.name in _PUBLISHES_BUNDLES:
        keys = {_SIGNING_SECRET_KEY: SIGNING_KEY}
        kubernetes.use_secret_as_env(task, secret_name=_SIGNING_SECRET, secret_key_to_env=keys, optional=True)
    _set_resources(task, step.resources)
    if step.has_job:
        _retry_lost_pods(task)
    if not step.cached:
        task.set_caching_options(False)
    if step.name == "configure" or step.has_job:
        # Without this ConfigMap the folder is empty, which stands for the default policy.
        kubernetes.use_config_map_as_volume(task, CONFIG_MAP, mount_path=str(POLICY_FOLDER), optional=True)
    if step.name == "configure":
        _from_config_map(task, STORE, optional=True)


def _retry_lost_pods(task: PipelineTask) -> None:
    """Try a long step again if its pod is lost.

    A step that fails although its pod is not lost is also tried again, and fails again at once. So there are few tries,
    with short pauses. ``backoff_max_duration`` counts from the first try, so it must be longer than any training.
    """
    task.set_retry(num_retries=3, backoff_duration="5s", backoff_factor=1.0, backoff_max_duration="8760h")


def _set_resources(task: PipelineTask, resources: Resources) -> None:
    task.set_cpu_request(resources.cpu)
    task.set_memory_request(resources.memory_request)
    task.set_memory_limit(resources.memory)
    if resources.cpu_limit:
        task.set_cpu_limit(resources.cpu_limit)


def _set_environment(task: PipelineTask) -> None:
    # The network policy of the steps selects their pods by these labels.
    for name, value in STEP_LABELS.items():
        kubernetes.add_pod_label(task, name, value)
    # MindSpore's generated code works only with this implementation, and kfp imports protobuf before a step starts.
    task.set_env_variable("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    # The images of kubeyolo set these variables; a run may use other images.
    for name, value in CONTAINER_VARIABLES.items():
        task.set_env_variable(name, value)
    # The images do not run as root, but the restricted level of PodSecurity requires this setting as well.
    kubernetes.set_security_context(task, run_as_non_root=True)
    keys = {"accesskey": "MINIO_ACCESS_KEY", "secretkey": "MINIO_SECRET_KEY"}
    kubernetes.use_secret_as_env(task, secret_name=STORE_SECRET, secret_key_to_env=keys)
    for name in ("MINIO_ENDPOINT", "MINIO_SECURE", "MINIO_REGION", "MINIO_PATIENCE"):
        _from_config_map(task, name, optional=name != "MINIO_ENDPOINT")
    _from_config_map(task, TRUSTED_KEYS, optional=True)
    kubernetes.use_field_path_as_env(task, env_name=RUN_ID, field_path="metadata.labels['pipeline/runid']")


def _from_config_map(task: PipelineTask, name: str, optional: bool) -> None:
    kubernetes.use_config_map_as_env(
        task, config_map_name=STORE_CONFIG, config_map_key_to_env={name: name}, optional=optional
    )

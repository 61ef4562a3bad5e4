"""What every step finds in its environment."""

from kfp import kubernetes
from kfp.dsl import PipelineTask

STORE_SECRET = "mlpipeline-minio-artifact"
"""Secret of Kubeflow with the keys of the object store."""

STORE_CONFIG = "kubeyolo-store"
"""ConfigMap that says how pods reach the object store."""


def survive_lost_pods(task: PipelineTask) -> None:
    """Let a long step be tried again when its pod is lost.

    A step that has failed by itself is tried again too, and fails at once: few tries, and soon. The duration is counted
    from the start of the first try: it has to be longer than any training.
    """
    task.set_retry(num_retries=3, backoff_duration="5s", backoff_factor=1.0, backoff_max_duration="8760h")


def give_surroundings(task: PipelineTask) -> None:
    """Give a step its environment; on one machine it has that of the command, and the references are ignored."""
    # MindSpore's generated code works with this implementation alone, and kfp has chosen one before a step begins.
    task.set_env_variable("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    # The images have a user of their own; the restricted level of PodSecurity wants it said as well.
    kubernetes.set_security_context(task, run_as_non_root=True)
    keys = {"accesskey": "MINIO_ACCESS_KEY", "secretkey": "MINIO_SECRET_KEY"}
    kubernetes.use_secret_as_env(task, secret_name=STORE_SECRET, secret_key_to_env=keys)
    for name in ("MINIO_ENDPOINT", "MINIO_SECURE", "MINIO_REGION", "MINIO_PATIENCE"):
        kubernetes.use_config_map_as_env(
            task,
            config_map_name=STORE_CONFIG,
            config_map_key_to_env={name: name},
            optional=name != "MINIO_ENDPOINT",
        )

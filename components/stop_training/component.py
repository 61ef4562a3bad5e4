"""stop_training as Kubeflow sees it."""

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("launch"), packages_to_install=[], install_kfp_package=False)
def stop_training(launcher: str, cluster: dict) -> None:
    """Delete the training job that a run has left on the cluster, when there is one.

    Args:
        launcher: Launcher of the training; there is nothing to do for local.
        cluster: Settings of the cluster, over those of its preset.
    """
    from kubeyolo.steps.component import stop_training as run

    return run(launcher=launcher, cluster=cluster)

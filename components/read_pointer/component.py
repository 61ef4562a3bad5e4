"""read_pointer as Kubeflow sees it."""

from typing import NamedTuple

from kfp import dsl

from components.image import image


@dsl.component(base_image=image("launch"), packages_to_install=[], install_kfp_package=False)
def read_pointer(pointer: str, store: str, model: str, run_id: str, latest: str, force: bool) -> NamedTuple(
    "Outputs", [("data", str), ("fingerprint", str), ("in_use", str), ("latest", str), ("run_name", str)]
):
    """Tell whether the data set that a pointer names is another one than the model in use was trained on.

    Args:
        pointer: URI of the pointer to the data set: a JSON document such as {"data": "minio://kubeyolo/data/bccd"}.
        store: URI of the store with the models.
        model: Name of the model.
        run_id: Id of the run, for the name under which its results are stored.
        latest: URI of the pointer to the model in use; empty takes models/<model>/latest.json of the store.
        force: Whether to train although the data set is the same.

    Returns:
        data: URI of the data set to train on; empty when there is nothing to do.
        fingerprint: Fingerprint of the data set.
        in_use: URI of the bundle in use; empty for none.
        latest: URI of the pointer to the model in use.
        run_name: Name of the run, under which its results are stored.
    """
    from kubeyolo.steps.component import read_pointer as run

    return run(pointer=pointer, store=store, model=model, run_id=run_id, latest=latest, force=force)

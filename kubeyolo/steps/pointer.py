"""read_pointer: whether the data set that a pointer names is another one than the model in use was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from kubeyolo.bundle import MANIFEST_NAME
from kubeyolo.errors import InputError
from kubeyolo.pointers import check_pointer_name, latest_model, nothing_in_use, read_data_pointer, read_model_pointer
from kubeyolo.storage.uri import open_store

STEP = "read_pointer"

_RUN_DIGITS = 8


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """What a retraining is to do.

    Attributes:
        data: URI of the data set to train on; empty when there is nothing to do.
        fingerprint: Fingerprint of that data set.
        in_use: URI of the bundle in use; empty when there is none.
        latest: URI of the pointer to the model in use.
        run_name: Name of this run, under which its results are stored.
    """

    data: str
    fingerprint: str
    in_use: str
    latest: str
    run_name: str


def read_pointer(
    pointer: str, store: str, model: str, run_id: str, latest: str = "", force: bool = False
) -> Retraining:
    """Look at what a pointer names, and at what the model in use was trained on.

    Args:
        pointer: URI of the pointer to the data set.
        store: URI of the store with the models.
        model: Name of the model.
        run_id: What tells this run from all others: each has a folder of its own.
        latest: URI of the pointer to the model in use; empty takes ``models/<model>/latest.json`` of the store.
        force: Whether to train although the data set is the same.

    Raises:
        InputError: A pointer cannot be read, or what it names is not there.
    """
    from kubeyolo.config.load import load_config
    from kubeyolo.data.digest import fingerprint
    from kubeyolo.data.folder import dataset_name

    load_config(model)
    check_pointer_name(latest)
    data = read_data_pointer(pointer)
    latest = latest or latest_model(store, model)
    current = read_model_pointer(latest)
    try:
        found = fingerprint(data)
    except InputError as error:
        raise InputError(f"{pointer} points at a data set that cannot be used: {error}") from error
    if current is not None and not open_store(current.bundle).exists(MANIFEST_NAME):
        raise InputError(
            f"{latest} points at {current.bundle}, where there is no bundle; correct it, or remove it to begin anew"
        )
    print(f"{pointer} points at {data}, fingerprint {found[:12]}", flush=True)
    in_use = current.bundle if current else ""
    if current is not None and current.fingerprint == found and not force:
        print(
            f"unchanged: this data was used for the last model that was put in use; in use stays {in_use} "
            "(force=true trains all the same, with other settings for instance)",
            flush=True,
        )
        data = ""
    else:
        print(f"to train; {f'in use is {in_use}' if in_use else nothing_in_use(latest)}", flush=True)
    name = f"{model}-{dataset_name(data or pointer)}-{run_id[:_RUN_DIGITS]}"
    return Retraining(data=data, fingerprint=found, in_use=in_use, latest=latest, run_name=name)

"""The key of the store for the pods of a job: limited to the folders of the job, in a Secret, renewed while it runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError
from kubeyolo.launch.cluster import Cluster, Unreachable
from kubeyolo.launch.manifest import GROUP, KEY_FILE, VERSION, key_secret
from kubeyolo.launch.settings import ClusterSettings
from kubeyolo.output_streams import Show
from kubeyolo.storage.location import BucketLocation
from kubeyolo.storage.minio_settings import MinioSettings
from kubeyolo.storage.place import Place
from kubeyolo.storage.scoped_key import NoScopedKey, ScopedKey, StoreUnreachable, request_key
from kubeyolo.work import Work

_PAUSE_SECONDS = 30.0
"""Time between two attempts to renew a key."""


def store_key(cluster: Cluster, work: Work, settings: ClusterSettings, name: str, show: Show) -> StoreKey | None:
    """Return the key for the pods of a job; None, after a line with the reason, if they use that of the settings.

    Args:
        cluster: Cluster of the job.
        work: The work; the key can read what it reads, and write to its output.
        settings: Cluster settings, with the Secret that is used otherwise.
        name: Name of the job.
        show: Shows a line.

    Raises:
        InputError: The name of a folder cannot be in a policy of the store.
        Unreachable: The API server does not answer.
    """
    key = StoreKey(cluster, work, name, show)
    try:
        if not all(cluster.may(verb, "secrets") for verb in ("create", "update")):
            raise NoScopedKey(f"this account may not create and update Secrets in namespace {cluster.namespace}")
        key.request()
    except NoScopedKey as error:
        show(f"the trainers use the key in the Secret {settings.store_secret}, for everything that it allows: {error}")
        return None
    except StoreUnreachable as error:
        show(f"warning: {error}; the pods start when it has given out a key for them")
    return key


class StoreKey:
    """The key of the store for the pods of one job.

    Pods read the key from a file, which Kubernetes replaces soon after the Secret has changed. The Secret is removed
    with the job.

    Args:
        cluster: Cluster of the job.
        work: The work.
        name: Name of the job.
        show: Shows a line.
    """

    def __init__(self, cluster: Cluster, work: Work, name: str, show: Show) -> None:
        self._cluster, self._name, self._show = cluster, name, show
        self._reads = [_location(uri) for uri in work.reads.values() if uri]
        self._output = _location(work.output)
        self._key: ScopedKey | None = None
        self._owner = ""
        self._renew_at = self._try_at = 0.0

    def request(self) -> None:
        """Get a new key from the store.

        Raises:
            InputError: The name of a folder cannot be in a policy of the store.
            NoScopedKey: The store does not give out such keys, or this process has no key of the store.
            StoreUnreachable: The store does not answer.
        """
        try:
            settings = MinioSettings.from_environment(self._output.uri)
        except InputError as error:
            raise NoScopedKey(str(error)) from error
        self._key = request_key(settings, self._reads, [self._output])
        self._renew_at = time.monotonic() + self._key.seconds / 2

    def keep(self, job: Mapping[str, Any]) -> None:
        """Write the Secret of a new job, and renew the key when half of its time is over.

        Raises:
            InputError: Kubernetes refuses the Secret of a new job, or the store refuses its key.
            Unreachable: The API server does not answer.
        """
        uid, now = job["metadata"]["uid"], time.monotonic()
        is_new, is_due = uid != self._owner, self._key is None or now >= self._renew_at
        if not (is_new or is_due) or now < self._try_at:
            return
        try:
            if is_due:
                self.request()
            self._write(uid)
        except (Unreachable, InterruptedWork):
            raise
        except KubeyoloError as error:
            if is_new and not isinstance(error, StoreUnreachable):
                raise InputError(f"the pods of job {self._name} get no key of the store: {error}") from error
            self._try_at = now + _PAUSE_SECONDS
            self._show(f"warning: the key of the store was not renewed: {error}; trying again")

    def _write(self, uid: str) -> None:
        assert self._key is not None
        owner = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Job", "name": self._name, "uid": uid}
        metadata = {"name": key_secret(self._name), "ownerReferences": [owner]}
        content = {"type": "Opaque", "stringData": {KEY_FILE: self._key.document}}
        self._cluster.write_secret({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **content})
        self._owner = uid


def _location(uri: str) -> BucketLocation:
    location = Place.of(uri).location
    if not isinstance(location, BucketLocation):
        raise InputError(f"{uri}: pods cannot read folders on this machine")
    return location

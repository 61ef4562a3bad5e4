"""How often a step asks its store: each bucket is contacted once, each manifest read once, each file hashed once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kubeyolo import bundle as bundle_module
from kubeyolo.bundle import MANIFEST_NAME, ONNX, WEIGHTS
from kubeyolo.config.load import load_config
from kubeyolo.steps import component
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.storage import minio_store
from kubeyolo.storage.copy import copy_tree
from kubeyolo.storage.patient_pool import PatientPool
from kubeyolo.storage.place import Place
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import MODEL, fixed_bundle, write_data
from tests.steps.test_component import Artifact


class Requests:
    """Requests to the object store, and how often the sha256 of a content was taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, str]] = []
        self.hashed: Counter[str] = Counter()
        send, digest = PatientPool.urlopen, minio_store.sha256_file

        def urlopen(pool: PatientPool, method: str, url: str, redirect: bool = True, **request: Any) -> Any:
            self.sent.append((method, urlsplit(url).path))
            return send(pool, method, url, redirect, **request)

        def sha256_file(path: Path) -> str:
            found = digest(path)
            self.hashed[found] += 1
            return found

        monkeypatch.setattr(PatientPool, "urlopen", urlopen)
        for module in (minio_store, bundle_module):
            monkeypatch.setattr(module, "sha256_file", sha256_file)

    def contacts(self, bucket: str) -> int:
        """Return how often the bucket itself was asked for."""
        return sum(method == "HEAD" and path.strip("/") == bucket for method, path in self.sent)

    def reads(self, name: str) -> int:
        """Return how often an object of a name was read."""
        return sum(method == "GET" and path.endswith(f"/{name}") for method, path in self.sent)


def settings_of(step: str, store: str) -> dict[str, Any]:
    config = load_config(MODEL, sets=["evaluate.per_batch_size=1"])
    settings = StepSettings(store=store, code="c", model=MODEL, config=read_sections(config, step), runtime="onnx")
    return settings.struct()


@pytest.fixture
def remote(minio_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A bundle with an ONNX network and a data set in a bucket, as references."""
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    store = f"minio://{minio_bucket}/store"
    dataset = validate_dataset(str(write_data(tmp_path / "data")), store).dataset
    copy_tree(fixed_bundle(tmp_path / "fixed", {"onnx": 4}, dataset), f"{store}/bundle", last=[MANIFEST_NAME])
    bundle = bundle_module.read_bundle(Place.of(f"{store}/bundle")).reference
    return {"bucket": minio_bucket, "store": store, "dataset": dataset, "bundle": bundle}


def files_of(remote: dict[str, str]) -> list[str]:
    """Return the sha256 of the files of the bundle."""
    files = bundle_module.read_bundle(Place.of(remote["bundle"])).manifest.files
    return [files[name].sha256 for name in (WEIGHTS, ONNX)]


def test_evaluate_contacts_its_store_once_and_reads_and_hashes_each_thing_once(
    remote: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"bundle": remote["bundle"], "dataset": remote["dataset"]}
    settings = settings_of("evaluate", remote["store"])

    def evaluate() -> tuple[str]:
        artifacts = {name: Artifact(tmp_path / name) for name in ("evaluation_report", "confusion_matrix")}
        made: tuple[str] = component.evaluate(settings=settings, **inputs, **artifacts)  # type: ignore[arg-type]
        return made

    requests = Requests(monkeypatch)
    first = evaluate()
    assert requests.contacts(remote["bucket"]) == 1
    assert (requests.reads(MANIFEST_NAME), requests.reads("dataset.json")) == (1, 1)
    assert [requests.hashed[sha256] for sha256 in files_of(remote)] == [1, 1]
    # The same again finds its result: the files of the bundle are not fetched.
    requests.sent.clear()
    requests.hashed.clear()
    assert evaluate() == first
    assert requests.contacts(remote["bucket"]) == 1
    assert (requests.reads(MANIFEST_NAME), requests.reads(ONNX), sum(requests.hashed.values())) == (1, 0, 0)


def test_a_bundle_is_hashed_once_when_another_one_is_derived_from_it(
    remote: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = Requests(monkeypatch)
    settings = settings_of("publish", remote["store"])
    artifacts = {name: Artifact(tmp_path / name) for name in ("published_detector", "model_card", "summary")}
    component.publish(settings=settings, bundle=remote["bundle"], evaluation="", training="", **artifacts)  # type: ignore[arg-type]
    assert requests.contacts(remote["bucket"]) == 1
    # Once when it is fetched, and once when the store takes the new object's checksum.
    assert [requests.hashed[sha256] for sha256 in files_of(remote)] == [2, 2]

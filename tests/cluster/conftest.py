"""A cluster with Kubeflow, Volcano and the manifests of kubeyolo; ``make test-cluster`` says what has to be set."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.storage.place import Place
from tests.cluster.site import CARDS, CARDS_LABEL, REQUIRED, Site, Submission


def pytest_configure(config: pytest.Config) -> None:
    missing = [name for name in REQUIRED if not os.environ.get(name)]
    if missing:
        pytest.exit(f"the tests of a cluster need {', '.join(missing)}; see docs/cluster.md", returncode=2)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(2400))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    yield found
    found.clean()


def upload_sample(site: Site, folder: Path, seed: int) -> str:
    """Generate a small data set, put it into the store and return its URI."""
    generate_sample_dataset(folder / "shapes", train=96, val=32, seed=seed)
    uri = (Place.of(site.place) / f"data-{seed}" / "shapes").uri
    Place.of(uri).store.put_tree(folder / "shapes", "")
    return uri


@pytest.fixture(scope="session")
def data(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    return upload_sample(site, tmp_path_factory.mktemp("data"), 0)


@pytest.fixture(scope="session")
def other_data(site: Site, tmp_path_factory: pytest.TempPathFactory) -> str:
    return upload_sample(site, tmp_path_factory.mktemp("data"), 1)


@pytest.fixture(scope="session")
def dataset(site: Site, data: str) -> str:
    """URI of the data set as it is stored once it was validated."""
    code, text = site.call("validate", data, "--store", site.new_store())
    assert code == 0, text
    found = re.search(r"minio://\S+/datasets/[\w-]+", text)
    assert found, text
    return found[0]


@pytest.fixture(scope="session")
def undisturbed(site: Site, data: str) -> Submission:
    """A run that nothing has happened to."""
    submission = site.submit(data, site.new_store())
    assert submission.end() == 0, submission.command.text
    return submission


POLICY = "kubeyolo-policy"


@pytest.fixture(scope="session")
def pretended(site: Site) -> Iterator[None]:
    """The policy of the cluster allows the taints of pretended nodes, and each node is labelled with its cards."""
    nodes = [node for node in site.objects("nodes") if CARDS in node["status"]["allocatable"]]
    keys = sorted({taint["key"] for node in nodes for taint in node["spec"].get("taints", ())})
    for node in nodes:
        label = f"{CARDS_LABEL}={node['status']['allocatable'][CARDS]}"
        site.kubectl("label", "--overwrite", "node", node["metadata"]["name"], label)
    before = json.loads(site.kubectl("get", "configmap", POLICY, "-o", "json"))["data"]["tolerations"]
    site.kubectl("patch", "configmap", POLICY, "-p", json.dumps({"data": {"tolerations": " ".join(keys)}}))
    yield
    site.kubectl("patch", "configmap", POLICY, "-p", json.dumps({"data": {"tolerations": before}}))

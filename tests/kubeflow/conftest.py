"""A double of Kubeflow, which the environment names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kubeflow.kubeflow_double import KubeflowDouble


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeflowDouble]:
    double = KubeflowDouble()
    monkeypatch.setenv("KUBEYOLO_KFP_HOST", double.host)
    for name in ("KUBEYOLO_KFP_TOKEN", "KUBEYOLO_KFP_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    # The pods of its runs are nowhere: the cluster of whoever runs the tests is not asked for them.
    monkeypatch.setenv("KUBECONFIG", "/nowhere/kubeconfig")
    yield double
    double.stop()

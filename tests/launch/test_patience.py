"""A launcher whose API server is away, or that is told to end, at an awkward moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kubeyolo.errors import InterruptedWork
from kubeyolo.launch.cluster import Cluster, Document, Unreachable
from kubeyolo.launch.volcano import stop_training
from tests.kubernetes_server import KubernetesServer, wait_for
from tests.launch.launching import Launch, make_step_pod, nothing_left, settings
from tests.launch.volcano_double import Volcano

AWAY = Unreachable("Kubernetes API server: does not answer")
TOLD = InterruptedWork("interrupted: told to stop")


class Awkward(Cluster):
    """A cluster some of whose requests fail, each once: before a look at a job or its deletion, after its creation."""

    looks: list[Exception]
    looks_after_deletion: list[Exception]
    creation: Exception | None = None
    deletion: Exception | None = None

    @classmethod
    def of(cls, cluster: Cluster) -> Awkward:
        made = cls(cluster._api, cluster.namespace, cluster.home)
        made.looks, made.looks_after_deletion = [], []
        return made

    def own_pod(self, name: str, seconds: float = 1.0) -> Document | None:
        self._look()
        return super().own_pod(name, seconds)

    def job(self, name: str) -> Document | None:
        self._look()
        return super().job(name)

    def jobs(self, selector: str) -> list[Document]:
        self._look()
        return super().jobs(selector)

    def create_job(self, manifest: Mapping[str, Any]) -> Document:
        job = super().create_job(manifest)
        error, self.creation = self.creation, None
        if error is not None:
            raise error
        return job

    def delete_job(self, name: str, uid: str = "") -> bool:
        error, self.deletion = self.deletion, None
        if error is not None:
            self.looks = self.looks_after_deletion
            raise error
        return super().delete_job(name, uid)

    def _look(self) -> None:
        if self.looks:
            raise self.looks.pop(0)


@pytest.fixture
def awkward(cluster: Cluster) -> Awkward:
    return Awkward.of(cluster)


def test_the_api_server_may_be_away(launch: Callable[..., Launch], volcano: Volcano) -> None:
    run = launch()
    job = volcano.wait_job()
    names = volcano.run(job)
    run.heard("running")
    volcano.kubernetes.stop_api_server()
    run.heard("trying again for 30 s")
    volcano.kubernetes.start_api_server()
    run.heard("the API server is back")
    volcano.kubelet.say(names[0], "after the restart")
    run.heard("after the restart")
    volcano.phase(job, "Completed")
    volcano.kubelet.end(*names)
    assert run.end() is None


def test_an_api_server_that_has_never_answered_is_not_waited_for(awkward: Awkward, volcano: Volcano) -> None:
    awkward.looks = [AWAY]
    assert Launch(awkward).end() is AWAY
    assert volcano.jobs() == []


def test_a_step_waits_for_the_api_server_from_the_start(
    awkward: Awkward, volcano: Volcano, kubernetes: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_step_pod(kubernetes, volcano.namespace)
    monkeypatch.setenv("KFP_POD_NAME", "step")
    awkward.looks = [AWAY, AWAY]
    run = Launch(awkward)
    run.heard("submitted job")
    assert run.lines[:2] == [f"warning: {AWAY}; trying again for 30 s", "the API server is back"]
    awkward.looks = [AWAY, AWAY]
    assert stop_training(settings(), lambda line: None, cluster=awkward) == 1
    assert "deleted by somebody else" in str(run.end())
    wait_for(lambda: not volcano.jobs())


def test_the_api_server_may_be_away_between_two_jobs(awkward: Awkward, volcano: Volcano) -> None:
    run = Launch(awkward, resubmissions=1)
    job = volcano.wait_job()
    for name in volcano.run(job):
        volcano.end_pod(name, 137)
    awkward.deletion, awkward.looks_after_deletion = AWAY, [AWAY, AWAY]
    volcano.phase(job, "Failed")
    run.heard("could not be deleted")
    second = volcano.wait_job(job["metadata"]["uid"])
    run.heard("the API server is back")
    volcano.phase(second, "Completed")
    assert run.end() is None
    assert nothing_left(volcano)


def test_a_job_whose_creation_was_not_answered_is_adopted(awkward: Awkward, volcano: Volcano) -> None:
    awkward.creation = AWAY
    run = Launch(awkward)
    job = volcano.wait_job()
    run.heard("adopted job")
    volcano.phase(job, "Completed")
    assert run.end() is None
    assert nothing_left(volcano)


def test_who_is_told_to_end_while_the_job_is_created_leaves_none(awkward: Awkward, volcano: Volcano) -> None:
    awkward.creation = TOLD
    assert Launch(awkward).end() is TOLD
    assert nothing_left(volcano)


def test_who_is_told_to_end_while_the_job_is_looked_at_deletes_it(awkward: Awkward, volcano: Volcano) -> None:
    run = Launch(awkward)
    volcano.run(volcano.wait_job())
    run.heard("running")
    awkward.looks = [TOLD]
    assert run.end() is TOLD
    assert nothing_left(volcano)


def test_who_is_told_to_end_while_the_job_is_deleted_still_deletes_it(awkward: Awkward, volcano: Volcano) -> None:
    run = Launch(awkward)
    job = volcano.wait_job()
    awkward.deletion = TOLD
    volcano.phase(job, "Completed")
    assert run.end() is TOLD
    assert nothing_left(volcano)

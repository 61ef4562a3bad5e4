"""A launcher whose API server is away, or that is told to end, at an awkward moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kubeyolo.errors import InputError, InterruptedWork
from kubeyolo.launch.cluster import Cluster, Document, Unreachable
from tests.kubernetes_server import KubernetesServer, wait_for
from tests.launch.launching import TIMING, Launch, make_step_pod, nothing_left
from tests.launch.volcano_double import Volcano

AWAY = Unreachable("Kubernetes API server: does not answer")

# As the command of a terminal is told to end, and as a step of a pipeline.
told = pytest.mark.parametrize(
    "told", [InterruptedWork("interrupted: told to stop"), SystemExit(143)], ids=("terminal", "step")
)


class Awkward(Cluster):
    """A cluster some of whose requests fail: before a look at a job, before and after its creation, at its deletion."""

    looks: list[BaseException]
    looks_after_deletion: list[BaseException]
    before_creation: Callable[[Mapping[str, Any]], None]
    creation: BaseException | None = None
    deletion: BaseException | None = None

    @classmethod
    def of(cls, cluster: Cluster) -> Awkward:
        made = cls(cluster._api, cluster.namespace, cluster.home)
        made.looks, made.looks_after_deletion, made.before_creation = [], [], lambda manifest: None
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
        self.before_creation(manifest)
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
    volcano.phase(volcano.wait_job(), "Completed")
    assert run.end() is None
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


def test_a_job_whose_creation_was_not_answered_is_taken_as_made(awkward: Awkward, volcano: Volcano) -> None:
    awkward.creation = AWAY
    run = Launch(awkward)
    job = volcano.wait_job()
    run.heard("submitted job")
    assert [each["metadata"]["uid"] for each in volcano.jobs()] == [job["metadata"]["uid"]]
    volcano.phase(job, "Completed")
    assert run.end() is None
    assert nothing_left(volcano)


def fail(manifest: Mapping[str, Any]) -> None:
    raise AWAY


def test_an_api_server_that_refuses_a_part_of_what_is_asked_is_given_up(awkward: Awkward, volcano: Volcano) -> None:
    """It answers to every look at the job, and never creates one."""
    awkward.before_creation = fail
    run = Launch(awkward, timing=replace(TIMING, outage=0.5))
    assert run.end() is AWAY
    assert [line for line in run.lines if line.startswith("warning")] == [f"warning: {AWAY}; trying again for 0 s"]
    assert volcano.jobs() == []


def test_the_job_of_somebody_else_is_not_deleted(
    awkward: Awkward, volcano: Volcano, kubernetes: KubernetesServer
) -> None:
    """Ours was never created, and another one of its name is there by now."""

    def be_late(manifest: Mapping[str, Any]) -> None:
        labels = manifest["metadata"]["labels"]
        metadata = {"name": manifest["metadata"]["name"], "labels": labels}
        path = f"/apis/batch.volcano.sh/v1alpha1/namespaces/{volcano.namespace}/jobs"
        kubernetes.do("POST", path, {**manifest, "metadata": metadata})
        raise AWAY

    awkward.before_creation = be_late
    error = Launch(awkward).end()
    assert isinstance(error, InputError) and "exists, with different settings" in str(error)
    assert len(volcano.jobs()) == 1


@told
def test_who_is_told_to_end_while_the_job_is_created_leaves_none(
    awkward: Awkward, volcano: Volcano, told: BaseException
) -> None:
    awkward.creation = told
    assert Launch(awkward).end() is told
    assert nothing_left(volcano)


@told
def test_who_is_told_to_end_while_the_job_is_looked_at_deletes_it(
    awkward: Awkward, volcano: Volcano, told: BaseException
) -> None:
    run = Launch(awkward)
    volcano.run(volcano.wait_job())
    run.heard("running")
    awkward.looks = [told]
    assert run.end() is told
    assert nothing_left(volcano)


@told
def test_who_is_told_to_end_while_the_job_is_deleted_still_deletes_it(
    awkward: Awkward, volcano: Volcano, told: BaseException
) -> None:
    run = Launch(awkward)
    job = volcano.wait_job()
    awkward.deletion = told
    volcano.phase(job, "Completed")
    assert run.end() is told
    assert nothing_left(volcano)

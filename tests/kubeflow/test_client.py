"""Runs on Kubeflow, as its REST interface tells of them."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.errors import InputError, WorkError
from kubeyolo.kubeflow.client import Kubeflow
from kubeyolo.kubeflow.connection import NoApi, NoSuchThing, Unreachable
from kubeyolo.kubeflow.follow import TerminatedRun, follow
from kubeyolo.kubeflow.remote import TERMINATED
from kubeyolo.launch.step_pods import StepPods
from tests.kubeflow.kubeflow_double import BEGIN, CACHED, END, WORKFLOW, KubeflowDouble, node_of, nodes, task
from tests.runs.conftest import Watched

TEXT = "# PIPELINE\nroot: {}\n"
PIPELINE = CompiledPipeline(TEXT)


def submitted(double: KubeflowDouble, *states: tuple[str, list[dict[str, Any]]], name: str = "one") -> str:
    double.next_states = list(states)
    kubeflow = Kubeflow()
    version = kubeflow.pipeline_version("detector-training", PIPELINE)
    return kubeflow.submit(name, kubeflow.make_experiment("group"), version, {"data": "minio://d"}).id


def test_a_pipeline_is_uploaded_once_for_each_content(double: KubeflowDouble) -> None:
    kubeflow = Kubeflow()
    first = kubeflow.pipeline_version("detector-training", PIPELINE)
    for number in range(4):
        kubeflow.pipeline_version("detector-training", CompiledPipeline(f"{TEXT}# {number}\n"))
    assert kubeflow.pipeline_version("detector-training", PIPELINE) == first
    assert len(double.uploads) == 5 and TEXT.encode() in double.uploads[0]
    assert len(double.pipelines) == 1


def test_a_run_has_its_experiment_version_and_arguments(double: KubeflowDouble) -> None:
    run_id = submitted(double)
    body = double.runs[run_id].body
    assert body["experiment_id"] == double.experiments["group"]
    assert body["runtime_config"] == {"parameters": {"data": "minio://d"}}
    (pipeline,) = double.pipelines.values()
    assert body["pipeline_version_reference"] == {
        "pipeline_id": pipeline["pipeline_id"],
        "pipeline_version_id": double.versions[pipeline["pipeline_id"]][0]["pipeline_version_id"],
    }
    submitted(double, name="two")
    assert len(double.experiments) == 1


def test_steps_are_told_from_the_machinery_around_them(double: KubeflowDouble) -> None:
    around = [{"display_name": name, "state": "RUNNING"} for name in ("exit-handler-1", "condition-2", "root-driver")]
    run_id = submitted(
        double, ("RUNNING", [*task("train", "RUNNING", 7), *task("evaluate-baseline", "SKIPPED", 8), *around])
    )
    run = Kubeflow().run(run_id)
    assert [(step.name, step.state, step.pods) for step in run.steps] == [
        ("train", "RUNNING", (f"{WORKFLOW}-system-container-impl-7", f"{WORKFLOW}-retry-system-container-impl-7")),
        ("evaluate_baseline", "SKIPPED", ()),
    ]
    assert run.ended is None and not run.is_over and run.created is not None


def test_a_run_is_shown_step_by_step_to_its_end(double: KubeflowDouble) -> None:
    done = task("validate-dataset", "SUCCEEDED", 1)
    run_id = submitted(
        double,
        ("RUNNING", task("validate-dataset", "PENDING", 1)),
        ("RUNNING", task("validate-dataset", "RUNNING", 1)),
        ("RUNNING", [*done, *task("pretrain-backbone", CACHED, 2), *task("train", "RUNNING", 3)]),
        ("SUCCEEDED", [*done, *task("train", "SUCCEEDED", 3)]),
    )
    watched = Watched()
    assert follow(Kubeflow(), run_id, watched, poll_seconds=0).state == "SUCCEEDED"
    assert watched.said == [
        "started validate_dataset",
        "finished validate_dataset",
        "cached pretrain_backbone",
        "started train",
        "finished train",
    ]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("first\nerror: train: the loss is not finite\nlast\n", "train failed: train: the loss is not finite$"),
        ("first\nlast\n", r"train failed: first \| last$"),
        ("", "train failed: the pod was evicted$"),
    ],
)
def test_a_failed_run_says_which_step_and_its_last_lines(double: KubeflowDouble, log: str, said: str) -> None:
    double.logs[f"{WORKFLOW}-3"] = log
    run_id = submitted(double, ("FAILED", task("train", "FAILED", 3, "the pod was evicted")))
    watched = Watched()
    with pytest.raises(WorkError, match=f"^run one .{run_id}.: {said}"):
        follow(Kubeflow(), run_id, watched, poll_seconds=0)
    assert watched.said == ["started train", "failed train: the pod was evicted"]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (
            "16Gi",
            "at the limit of its pod, 16Gi); allow more with --resources train.memory=32Gi of 'kubeyolo pipeline', ",
        ),
        ("", "by its node); allow more with --resources train.memory=QUANTITY of 'kubeyolo pipeline', "),
    ],
)
def test_a_step_that_was_killed_for_memory_is_one_line_with_its_limit_and_the_option(
    double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch, limit: str, words: str
) -> None:
    double.logs[f"{WORKFLOW}-3"] = "step 700 of 900\n"
    monkeypatch.setattr(StepPods, "memory_kill", lambda self, *names: limit if names == (WORKFLOW, "train") else None)
    run_id = submitted(double, ("FAILED", [*task("configure", "SUCCEEDED", 1), *task("train", "FAILED", 3)]))
    with pytest.raises(WorkError) as caught:
        follow(Kubeflow(), run_id, Watched(), poll_seconds=0)
    assert str(caught.value) == (
        f"run one ({run_id}): train failed: out of memory (OOMKilled {words}or lower batch size, image size or "
        "data.cache_limit_mb"
    )


def test_a_failed_run_without_a_failed_step_is_told_too(double: KubeflowDouble) -> None:
    run_id = submitted(double, ("FAILED", []))
    with pytest.raises(WorkError, match="failed: Kubeflow does not report a reason; check 'kubectl -n kubeflow"):
        follow(Kubeflow(), run_id, Watched(), poll_seconds=0)


def test_a_namespace_that_admits_no_pod_of_argo_is_told(
    double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = submitted(double, ("FAILED", []))
    said = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'
    monkeypatch.setattr(StepPods, "failure", lambda self, run: said if run == run_id else "")
    with pytest.raises(WorkError, match=r"violates PodSecurity .*; Argo's own containers must comply with the Pod"):
        follow(Kubeflow(), run_id, Watched(), poll_seconds=0)


def test_the_pods_themselves_are_asked_when_kubeflow_keeps_no_log(
    double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(StepPods, "log", lambda self, *names: asked.append((self._namespace, *names)) or "its lines")
    monkeypatch.setattr(StepPods, "stuck", lambda self, *names: asked.append((self._namespace, *names)))
    kubeflow = Kubeflow()
    run = kubeflow.run(run_id)
    assert kubeflow.log(run_id, run.steps[0]) == "its lines" and kubeflow.stuck(run) is None
    assert asked == [("kubeflow", WORKFLOW, "train"), ("kubeflow", WORKFLOW)]
    double.logs[f"{WORKFLOW}-3"] = "kept"
    assert kubeflow.log(run_id, run.steps[0]) == "kept"


TRAIN = "root.exit-handler-1.train"
RETRIED = {
    "by nothing": ({TRAIN: [f"{TRAIN}.executor"]}, f"{TRAIN}.executor"),
    # The tries of a task that says how often: they are below its executor.
    "by the task": (
        {
            TRAIN: [f"{TRAIN}.executor"],
            f"{TRAIN}.executor": [f"{TRAIN}.executor({number})" for number in range(3)],
        },
        f"{TRAIN}.executor(2)",
    ),
    # The tries of an Argo that tries everything again: every node has them.
    "by Argo": (
        {
            TRAIN: [f"{TRAIN}(0)", f"{TRAIN}(1)"],
            f"{TRAIN}(0)": [f"{TRAIN}(0).executor"],
            f"{TRAIN}(0).executor": [f"{TRAIN}(0).executor(0)"],
            f"{TRAIN}(1)": [f"{TRAIN}(1).executor"],
            f"{TRAIN}(1).executor": [f"{TRAIN}(1).executor(0)", f"{TRAIN}(1).executor(1)"],
        },
        f"{TRAIN}(1).executor(1)",
    ),
}


@pytest.mark.parametrize("retried", RETRIED)
@pytest.mark.parametrize("log_page", [0, 200, 404])
def test_the_log_of_a_step_is_that_of_its_newest_try(double: KubeflowDouble, retried: str, log_page: int) -> None:
    tree, pod_node = RETRIED[retried]
    run_id = submitted(double, ("RUNNING", nodes({**tree, "root.exit-handler-1.evaluate": []})))
    step = Kubeflow().run(run_id).step("train")
    assert step is not None and step.node == node_of(pod_node) and step.workflow == WORKFLOW
    number = step.node.rpartition("-")[2]
    template = "retry-system-container-impl" if retried == "by the task" else "system-container-impl"
    double.logs[f"{WORKFLOW}-{template}-{number}"] = "of the newest try"
    for other in (node for below in tree.values() for node in below if node != pod_node):
        double.logs[f"{WORKFLOW}-{template}-{node_of(other).rpartition('-')[2]}"] = "of another pod"
    double.log_page = log_page
    assert Kubeflow().log(run_id, step) == "of the newest try"


@pytest.mark.parametrize("log_page", [200, 404])
def test_the_address_of_the_web_pages_has_logs_too(
    double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch, log_page: int
) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    pod = f"{WORKFLOW}-system-container-impl-3"
    double.log_page, double.logs[pod] = log_page, "<not a page>\n"
    step = Kubeflow().run(run_id).steps[0]
    assert Kubeflow().log(run_id, step) == "<not a page>\n"
    assert double.asked_pages == [{"podname": pod, "runid": run_id, "podnamespace": "kubeflow"}]
    monkeypatch.setenv("KUBEYOLO_KFP_NAMESPACE", "team")
    assert Kubeflow().log(run_id, step) == "<not a page>\n"
    assert double.asked_pages[-1]["podnamespace"] == "team"
    # They know nothing of it: what is left are the pods.
    double.logs.clear()
    assert Kubeflow().log(run_id, step) == ""
    monkeypatch.setattr(StepPods, "log", lambda self, *names: "its lines")
    assert Kubeflow().log(run_id, step) == "its lines"


def test_the_api_itself_is_not_asked_as_the_web_pages_are(double: KubeflowDouble) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    assert Kubeflow().log(run_id, Kubeflow().run(run_id).steps[0]) == ""
    assert double.asked_pages == []


def test_logs_behind_a_login_that_has_expired_are_those_of_the_pods(
    double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    kubeflow = Kubeflow()
    step = kubeflow.run(run_id).steps[0]
    double.answers_left = 0
    with pytest.raises(NoApi, match="the login has expired"):
        kubeflow.log(run_id, step)
    monkeypatch.setattr(StepPods, "log", lambda self, *names: "its lines")
    assert kubeflow.log(run_id, step) == "its lines"


def test_steps_after_a_failed_one_are_not_from_the_cache(double: KubeflowDouble) -> None:
    run_id = submitted(double, ("FAILED", [*task("train", "FAILED", 3), *task("evaluate", "SKIPPED", 4)]))
    watched = Watched()
    with pytest.raises(WorkError, match=rf"\({run_id}\): train failed: "):
        follow(Kubeflow(), run_id, watched, poll_seconds=0)
    assert [step.is_cached for step in Kubeflow().run(run_id).steps] == [False, False]
    assert watched.said == ["started train", "failed train: "]


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_a_run_whose_pod_can_never_start_is_terminated(double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    kubeflow, clock = Kubeflow(), Clock()
    waits = [("validate_dataset", "slow registry")] * 5 + [None] + [("train", "no image")] * 50
    looks = iter(waits)
    monkeypatch.setattr(kubeflow, "stuck", lambda run: next(looks))
    monkeypatch.setattr("kubeyolo.kubeflow.follow.time", clock)
    with pytest.raises(InputError, match=r"train cannot start: no image; the run is terminated"):
        follow(kubeflow, run_id, Watched(), poll_seconds=5, stuck_seconds=60)
    assert double.runs[run_id].terminated
    # Every 10 s: five looks at another step, one at none, and seven until it has waited for 60 s.
    assert len(list(looks)) == len(waits) - 5 - 1 - 7


def test_a_terminated_run_is_not_a_failed_one(double: KubeflowDouble) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    kubeflow = Kubeflow()
    kubeflow.terminate(run_id)
    assert kubeflow.run(run_id).state == TERMINATED
    with pytest.raises(TerminatedRun, match=rf"\({run_id}\).* was terminated") as ended:
        follow(kubeflow, run_id, Watched(), poll_seconds=0)
    assert ended.value.exit_code == 3


def test_the_steps_of_a_terminated_run_have_not_failed(double: KubeflowDouble) -> None:
    # Those that it did not come to have no state, and the time of its end. What has failed before has failed.
    failed = [{**one, "end_time": BEGIN} for one in task("pretrain-backbone", "FAILED", 2)]
    rest = {"display_name": "evaluate", "start_time": END, "end_time": END}
    run_id = submitted(
        double, ("RUNNING", [*task("train", "RUNNING", 3)]), ("FAILED", [*failed, *task("train", "FAILED", 3), rest])
    )
    kubeflow, watched = Kubeflow(), Watched()
    kubeflow.terminate(run_id)
    with pytest.raises(TerminatedRun):
        follow(kubeflow, run_id, watched, poll_seconds=0)
    steps = kubeflow.run(run_id).steps
    assert [(step.name, step.state, step.started is None) for step in steps] == [
        ("pretrain_backbone", "FAILED", False),
        ("train", TERMINATED, False),
        ("evaluate", "SKIPPED", True),
    ]
    assert not any(line.startswith("failed train") for line in watched.said)


def test_a_server_that_is_away_for_a_while_is_waited_for(double: KubeflowDouble) -> None:
    run_id = submitted(double, ("SUCCEEDED", []))
    double.failures = [503, 500, 503]
    assert follow(Kubeflow(), run_id, Watched(), poll_seconds=0).state == "SUCCEEDED"
    double.failures = [503] * 1000
    with pytest.raises(Unreachable, match=f"the run {run_id} continues"):
        follow(Kubeflow(), run_id, Watched(), poll_seconds=0.01, patience_seconds=0.05)


def test_runs_are_found_by_id_by_name_and_as_the_newest(double: KubeflowDouble) -> None:
    ids = [submitted(double, name=name) for name in ("a", "b", "a", "c")]
    kubeflow = Kubeflow()
    assert [run.id for run in kubeflow.runs()] == ids[::-1]
    assert kubeflow.find("a").id == ids[2]
    assert kubeflow.find(ids[1]).id == ids[1]
    assert kubeflow.find("latest").id == ids[3]
    for wanted in ("d", "0-0-0-0-0"):
        with pytest.raises(NoSuchThing, match="not known at"):
            kubeflow.find(wanted)
    with pytest.raises(NoSuchThing, match="experiment other: not known"):
        kubeflow.experiment("other")


def test_a_token_is_sent_and_one_that_is_refused_is_told(
    double: KubeflowDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.token = "secret-token"
    with pytest.raises(InputError, match=r"refuses the credentials for its health \(401 token expired\); set KUBEYOLO"):
        Kubeflow()
    monkeypatch.setenv("KUBEYOLO_KFP_TOKEN", "secret-token")
    Kubeflow()


def test_what_is_no_kubeflow_is_told(monkeypatch: pytest.MonkeyPatch, double: KubeflowDouble) -> None:
    with pytest.raises(Unreachable, match="http://127.0.0.1:9: does not answer"):
        Kubeflow("http://127.0.0.1:9")
    with pytest.raises(InputError, match="not known at"):
        Kubeflow(f"{double.host}/elsewhere")
    monkeypatch.delenv("KUBEYOLO_KFP_HOST")
    with pytest.raises(InputError, match="no Kubeflow host"):
        Kubeflow()


def test_the_page_of_a_login_is_no_empty_kubeflow(double: KubeflowDouble, capsys: pytest.CaptureFixture[str]) -> None:
    from kubeyolo.cli.app import main

    double.answers_left = 0
    with urllib.request.urlopen(f"{double.host}/apis/v2beta1/healthz") as answer:
        assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/html")
    for command in (("list",), ("status",), ("schedule", "list")):
        with pytest.raises(SystemExit) as ended:
            main(["pipeline", *command])
        said = capsys.readouterr()
        assert (ended.value.code, said.out) == (2, "")
        (line,) = said.err.strip().splitlines()
        assert f"Kubeflow at {double.host}: answers with a web page instead of Kubeflow's API: the login" in line
        assert "renew KUBEYOLO_KFP_TOKEN, and check --host or KUBEYOLO_KFP_HOST" in line


@pytest.mark.parametrize(
    "ask",
    [
        lambda kubeflow: list(kubeflow.runs()),
        lambda kubeflow: kubeflow.recurring(),
        lambda kubeflow: kubeflow.pipeline_version("detector-training", PIPELINE),
        lambda kubeflow: kubeflow.submit("one", "group", ("p", "v"), {}),
        lambda kubeflow: kubeflow.terminate("one"),
        lambda kubeflow: kubeflow._read_log("one", "node"),
        lambda kubeflow: kubeflow._read_log_of_pages("one", "pod"),
    ],
)
def test_a_session_may_expire_at_any_answer(double: KubeflowDouble, ask: Callable[[Kubeflow], Any]) -> None:
    kubeflow = Kubeflow()
    double.answers_left = 0
    with pytest.raises(NoApi, match="the login has expired"):
        ask(kubeflow)


def test_a_session_that_expires_while_a_run_is_followed_ends_the_wait(double: KubeflowDouble) -> None:
    run_id = submitted(double, ("RUNNING", task("train", "RUNNING", 3)))
    kubeflow, watched = Kubeflow(), Watched()
    double.answers_left = 3
    with pytest.raises(NoApi, match=f"has expired.*the run {run_id} continues: .*pipeline status {run_id}"):
        follow(kubeflow, run_id, watched, poll_seconds=0)
    assert watched.said == ["started train"]

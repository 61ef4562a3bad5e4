"""Kubeflow Pipelines over its REST interface: pipelines, experiments, runs and logs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kubeyolo import __version__
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.kubeflow.connection import Connection, NoApi, NoSuchThing, Unreachable
from kubeyolo.kubeflow.remote import MARK, RemoteRun, RemoteStep, recurring_of, run_of
from kubeyolo.kubeflow.schedules import Change, Recurring, Wanted
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.launch.step_pods import StepPods

_DEFAULT_NAMESPACE = "kubeflow"


class Kubeflow(Connection):
    """A client of Kubeflow Pipelines.

    Args:
        host: Address of the API, such as ``http://127.0.0.1:8888``; if empty, an environment variable sets it.

    Raises:
        InputError: No host is set, or Kubeflow does not answer at the host.
    """

    def __init__(self, host: str = "") -> None:
        super().__init__(host)
        self._runs = self._api.RunServiceApi(self._client)
        self._experiments = self._api.ExperimentServiceApi(self._client)
        self._pipelines = self._api.PipelineServiceApi(self._client)
        self._uploads = self._api.PipelineUploadServiceApi(self._client)
        self._recurring = self._api.RecurringRunServiceApi(self._client)

    def pipeline_version(self, name: str, compiled: CompiledPipeline) -> tuple[str, str]:
        """Return the ids of a pipeline and of its version with this content; upload the version unless it exists."""
        description, text = compiled.description, compiled.text
        version = f"{__version__}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        what = f"pipeline {name}"
        try:
            pipeline = self._call(what, self._pipelines.pipeline_service_get_pipeline_by_name, name, **self._scope())
        except NoSuchThing:
            body = self._api.V2beta1Pipeline(name=name, display_name=name, description=description, **self._scope())
            pipeline = self._call(what, self._pipelines.pipeline_service_create_pipeline, body)
        versions = self._pages(
            what, self._pipelines.pipeline_service_list_pipeline_versions, "pipeline_versions", pipeline.pipeline_id
        )
        for known in versions:
            if known.display_name == version:
                return pipeline.pipeline_id, known.pipeline_version_id
        with temporary_folder("pipeline") as folder:
            path = folder / f"{name}.yaml"
            path.write_text(text, encoding="utf-8")
            made = self._call(
                f"{what} {version}",
                self._uploads.upload_pipeline_version,
                str(path),
                name=version,
                display_name=version,
                pipelineid=pipeline.pipeline_id,
                description=description,
            )
        return pipeline.pipeline_id, made.pipeline_version_id

    def experiment(self, name: str) -> str:
        """Return the id of an experiment.

        Raises:
            NoSuchThing: There is no experiment with this name.
        """
        what = f"experiment {name}"
        query = {"predicates": [{"operation": "EQUALS", "key": "name", "string_value": name}]}
        found = self._call(
            what,
            self._experiments.experiment_service_list_experiments,
            filter=json.dumps(query),
            page_size=1,
            **self._scope(),
        )
        if not found.experiments:
            raise NoSuchThing(f"{what}: not known at {self.host}")
        return str(found.experiments[0].experiment_id)

    def make_experiment(self, name: str) -> str:
        """Return the id of an experiment; create the experiment if it does not exist."""
        try:
            return self.experiment(name)
        except NoSuchThing:
            body = self._api.V2beta1Experiment(display_name=name, **self._scope())
            made = self._call(f"experiment {name}", self._experiments.experiment_service_create_experiment, body)
            return str(made.experiment_id)

    def submit(self, name: str, experiment: str, version: tuple[str, str], arguments: Mapping[str, Any]) -> RemoteRun:
        """Start a run.

        Args:
            name: Name of the run.
            experiment: Id of the experiment.
            version: Ids of pipeline and version.
            arguments: Values of parameters; other parameters keep their defaults.
        """
        reference = self._api.V2beta1PipelineVersionReference(pipeline_id=version[0], pipeline_version_id=version[1])
        body = self._api.V2beta1Run(
            display_name=name,
            experiment_id=experiment,
            pipeline_version_reference=reference,
            runtime_config=self._api.V2beta1RuntimeConfig(parameters=dict(arguments)),
        )
        return run_of(self._call(f"run {name}", self._runs.run_service_create_run, body))

    def run(self, run_id: str) -> RemoteRun:
        """Return a run by its id.

        Raises:
            NoSuchThing: There is no run with this id.
        """
        return run_of(self._call(f"run {run_id}", self._runs.run_service_get_run, run_id))

    def runs(self, experiment: str = "") -> Iterator[RemoteRun]:
        """Yield the runs of an experiment, newest first; without ``experiment`` the runs of all experiments."""
        options = {"sort_by": "created_at desc", **self._scope()}
        if experiment:
            options["experiment_id"] = experiment
        for found in self._pages("runs", self._runs.run_service_list_runs, "runs", **options):
            yield run_of(found)

    def find(self, wanted: str) -> RemoteRun:
        """Return the run with this id, or the newest run with this name, or the newest of all runs for ``latest``.

        Raises:
            NoSuchThing: There is no such run.
        """
        try:
            if wanted.count("-") == 4:
                return self.run(wanted)
        except NoSuchThing:
            pass
        for run in self.runs():
            if wanted in (run.name, "latest"):
                return self.run(run.id)
        raise NoSuchThing(f"run {wanted!r}: not known at {self.host}; see 'kubeyolo pipeline list'")

    def terminate(self, run_id: str) -> None:
        """Request the termination of a run."""
        self._call(f"run {run_id}", self._runs.run_service_terminate_run, run_id)

    def recurring(self) -> list[Recurring]:
        """Return the recurring runs that schedule files have created."""
        found = self._pages(
            "schedules", self._recurring.recurring_run_service_list_recurring_runs, "recurring_runs", **self._scope()
        )
        return [ours for ours in map(recurring_of, found) if ours is not None]

    def schedule(self, wanted: Wanted) -> str:
        """Create a recurring run for a schedule and return its id."""
        schedule, api = wanted.schedule, self._api
        what = f"schedule {schedule.name}"
        pipeline_id, version_id = self.pipeline_version(schedule.pipeline, wanted.pipeline)
        mark = json.dumps([schedule.name, wanted.owner, wanted.digest])
        body = api.V2beta1RecurringRun(
            display_name=schedule.name,
            description=f"{schedule.description}\n{MARK}{mark}".strip(),
            experiment_id=self.make_experiment(schedule.name),
            pipeline_version_reference=api.V2beta1PipelineVersionReference(
                pipeline_id=pipeline_id, pipeline_version_id=version_id
            ),
            runtime_config=api.V2beta1RuntimeConfig(parameters=dict(wanted.arguments)),
            trigger=api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=schedule.cron)),
            max_concurrency=str(schedule.concurrency),
            no_catchup=not schedule.catch_up,
            mode="ENABLE" if schedule.enabled else "DISABLE",
        )
        made = self._call(what, self._recurring.recurring_run_service_create_recurring_run, body)
        return str(made.recurring_run_id)

    def enable(self, recurring: Recurring, enabled: bool) -> None:
        """Switch a recurring run on or off."""
        service = self._recurring
        method = (
            service.recurring_run_service_enable_recurring_run
            if enabled
            else service.recurring_run_service_disable_recurring_run
        )
        self._call(f"schedule {recurring.name}", method, recurring.id)

    def delete(self, recurring: Recurring) -> None:
        """Delete a recurring run; the runs that it has started stay."""
        method = self._recurring.recurring_run_service_delete_recurring_run
        self._call(f"schedule {recurring.name}", method, recurring.id)

    def apply(self, change: Change) -> None:
        """Apply a change that :func:`plan` has returned."""
        if change.kind in ("create", "update") and change.wanted:
            # The old recurring run is deleted last: an interrupted update leaves two, and the next update deletes one.
            self.schedule(change.wanted)
        if change.kind in ("update", "delete") and change.found:
            self.delete(change.found)
        if change.kind in ("enable", "disable") and change.found:
            self.enable(change.found, change.kind == "enable")

    def log(self, run_id: str, step: RemoteStep) -> str:
        """Return the output of a step of a run; empty if its log is not stored."""
        if not step.node:
            return ""
        # Kubeflow's web server forwards requests to the API, except for logs, which have a separate endpoint.
        no_api = None
        for read in (self._read_log, self._read_log_of_pages):
            try:
                # Logs of pods are found by the name of the pod, archived logs by the name of the node.
                for name in (*step.pods, step.node):
                    text = read(run_id, name)
                    if text:
                        return text
                no_api = None
                break
            except NoSuchThing:
                pass
            except NoApi as error:
                no_api = error
        # Some installations store no log. The pod itself still has it, if this machine may read from Kubernetes.
        text = self._pods.log(step.workflow, step.name)
        if no_api and not text:
            raise no_api
        return text

    def stuck(self, run: RemoteRun) -> tuple[str, str] | None:
        """Return the step whose pod cannot start, and the reason; None if no such step is found."""
        return self._pods.stuck(run.workflow) if run.workflow else None

    def memory_kill(self, step: RemoteStep) -> str | None:
        """Return the memory limit of a step's pod that was killed because it used more, else None.

        It is None also if this machine may not read from Kubernetes, or the pod is gone.
        """
        return self._pods.memory_kill(step.workflow, step.name) if step.node else None

    def why(self, run: RemoteRun) -> str:
        """Return why a run has failed without a failed step, and the remedy."""
        reason = self._pods.failure(run.id)
        if not reason:
            namespace = self.namespace or _DEFAULT_NAMESPACE
            return f"Kubeflow does not report a reason; check 'kubectl -n {namespace} get workflows,events'"
        if "violates PodSecurity" in reason:
            return (
                f"{reason}; Argo's own containers must comply with the PodSecurity level of the namespace: see "
                "docs/cluster.md, step 1"
            )
        return reason

    @cached_property
    def _pods(self) -> StepPods:
        from kubeyolo.launch.step_pods import StepPods

        return StepPods(self.namespace or _DEFAULT_NAMESPACE)

    def _read_log(self, run_id: str, node: str) -> str:
        text = self._get_text(
            f"log of {node}", "/apis/v1alpha1/runs/{run}/nodes/{node}/log", {"run": run_id, "node": node}, {}
        )
        # The server has sent "200 OK" before it finds that there is no log.
        return "" if text.startswith('{"error_message":') or text.startswith('{"error":') else text

    def _read_log_of_pages(self, run_id: str, pod: str) -> str:
        namespace = self.namespace or _DEFAULT_NAMESPACE
        query = {"podname": pod, "runid": run_id, "podnamespace": namespace}
        try:
            return self._get_text(f"log of {pod}", "/k8s/pod/logs", {}, query)
        except NoSuchThing:
            return ""
        except Unreachable as error:
            # With status 500 the web server reports that neither the pod nor an archived log exists.
            if isinstance(error.__cause__, self._api.ApiException):
                return ""
            raise

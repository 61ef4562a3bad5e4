"""Kubeflow Pipelines over its REST interface: pipelines, experiments, runs and logs."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kubeyolo import __version__
from kubeyolo.compiled.read import description_of
from kubeyolo.errors import InputError, one_line
from kubeyolo.kubeflow.remote import LONGEST, MARK, RemoteRun, RemoteStep, recurring_of, run_of
from kubeyolo.kubeflow.schedules import Change, Recurring, Wanted
from kubeyolo.storage.workspace import temporary_folder

if TYPE_CHECKING:
    from kubeyolo.launch.steps import StepPods

HOST, TOKEN, NAMESPACE = "KUBEYOLO_KFP_HOST", "KUBEYOLO_KFP_TOKEN", "KUBEYOLO_KFP_NAMESPACE"

# The generated client takes no fraction, and would wait for ever.
_TIMEOUT_SECONDS = 60
_RETRIES = 2
_PAGE = 100
_DEFAULT_NAMESPACE = "kubeflow"
# With a page, they say of an address that it is not that of the API, and nothing of what was asked for.
_NOT_FOR_A_PAGE = frozenset({400, 404, 405})


class Unreachable(InputError):
    """Kubeflow does not answer, or not for now."""


class NoSuchThing(InputError):
    """Kubeflow knows nothing under this name or id."""


class NoApi(InputError):
    """What answers is a web page and not Kubeflow's API: that of a login, or of another address."""


class Kubeflow:
    """A client of Kubeflow Pipelines.

    Args:
        host: Address of the API, such as ``http://127.0.0.1:8888``; without it the environment names it.

    Raises:
        InputError: No host is named, or none answers there.
    """

    def __init__(self, host: str = "") -> None:
        import kfp_server_api as api
        import urllib3

        self.host = (host or os.environ.get(HOST, "")).rstrip("/")
        if not self.host:
            raise InputError(f"no Kubeflow host: give --host, or set {HOST}, such as http://127.0.0.1:8888")
        if "://" not in self.host:
            raise InputError(f"Kubeflow host {self.host!r}: expected an address such as http://127.0.0.1:8888")
        self.namespace = os.environ.get(NAMESPACE, "")
        configuration = api.Configuration(host=self.host)
        configuration.retries = urllib3.Retry(_RETRIES, backoff_factor=0.2)
        token = os.environ.get(TOKEN, "")
        if token:
            configuration.api_key["authorization"] = token
            configuration.api_key_prefix["authorization"] = "Bearer"
        self._api = api
        self._client = api.ApiClient(configuration)
        self._client.rest_client.request = self._answered(self._client.rest_client.request)
        self._runs = api.RunServiceApi(self._client)
        self._experiments = api.ExperimentServiceApi(self._client)
        self._pipelines = api.PipelineServiceApi(self._client)
        self._uploads = api.PipelineUploadServiceApi(self._client)
        self._recurring = api.RecurringRunServiceApi(self._client)
        self._call("its health", api.HealthzServiceApi(self._client).healthz_service_get_healthz)

    def pipeline_version(self, name: str, text: str) -> tuple[str, str]:
        """Return the ids of a pipeline and of the version with this content, which is uploaded unless it is there."""
        description = description_of(text)
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
            NoSuchThing: There is none of this name.
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
        """Return the id of an experiment, which is made unless it is there."""
        try:
            return self.experiment(name)
        except NoSuchThing:
            body = self._api.V2beta1Experiment(display_name=name, **self._scope())
            made = self._call(f"experiment {name}", self._experiments.experiment_service_create_experiment, body)
            return str(made.experiment_id)

    def submit(self, name: str, experiment: str, version: tuple[str, str], arguments: Mapping[str, Any]) -> RemoteRun:
        """Start a run.

        Args:
            name: Its name.
            experiment: Id of the experiment.
            version: Ids of pipeline and version.
            arguments: Values of parameters; those that are not given have their default.
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
            NoSuchThing: There is none.
        """
        return run_of(self._call(f"run {run_id}", self._runs.run_service_get_run, run_id))

    def runs(self, experiment: str = "") -> Iterator[RemoteRun]:
        """Yield runs, newest first; of all experiments when none is given."""
        options = {"sort_by": "created_at desc", **self._scope()}
        if experiment:
            options["experiment_id"] = experiment
        for found in self._pages("runs", self._runs.run_service_list_runs, "runs", **options):
            yield run_of(found)

    def find(self, wanted: str) -> RemoteRun:
        """Return a run by its id, or the newest one of a name, or the newest of all for ``latest``.

        Raises:
            NoSuchThing: There is none.
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
        """Ask for the end of a run."""
        self._call(f"run {run_id}", self._runs.run_service_terminate_run, run_id)

    def recurring(self) -> list[Recurring]:
        """Return the recurring runs that schedules have made."""
        found = self._pages(
            "schedules", self._recurring.recurring_run_service_list_recurring_runs, "recurring_runs", **self._scope()
        )
        return [ours for ours in map(recurring_of, found) if ours is not None]

    def schedule(self, wanted: Wanted) -> str:
        """Make a recurring run of a schedule and return its id."""
        schedule, api = wanted.schedule, self._api
        what = f"schedule {schedule.name}"
        pipeline_id, version_id = self.pipeline_version(schedule.pipeline, wanted.text)
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
        """Delete a recurring run; its runs stay."""
        method = self._recurring.recurring_run_service_delete_recurring_run
        self._call(f"schedule {recurring.name}", method, recurring.id)

    def apply(self, change: Change) -> None:
        """Do what a plan says."""
        if change.kind in ("create", "update") and change.wanted:
            # The old one goes last: an update that is cut off leaves two, of which the next one deletes one.
            self.schedule(change.wanted)
        if change.kind in ("update", "delete") and change.found:
            self.delete(change.found)
        if change.kind in ("enable", "disable") and change.found:
            self.enable(change.found, change.kind == "enable")

    def log(self, run_id: str, step: RemoteStep) -> str:
        """Return what a step of a run has printed; empty when nothing of it is kept."""
        if not step.node:
            return ""
        # Kubeflow's web pages pass the API on, but not the part of it with logs: they have an endpoint of their own.
        no_api = None
        for read in (self._read_log, self._read_log_of_pages):
            try:
                # Pods are asked for by their name, archived logs by the node's.
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
        # Some installations keep no log. What is left then is the pod itself, where this machine may ask Kubernetes.
        text = self._pods.log(step.workflow, step.name)
        if no_api and not text:
            raise no_api
        return text

    def stuck(self, run: RemoteRun) -> tuple[str, str] | None:
        """Return the step of a run whose pod cannot start and why, where this machine may ask Kubernetes."""
        return self._pods.stuck(run.workflow) if run.workflow else None

    def why(self, run: RemoteRun) -> str:
        """Return what has failed of a run none of whose steps has, and the remedy."""
        said = self._pods.failure(run.id)
        if not said:
            namespace = self.namespace or _DEFAULT_NAMESPACE
            return f"Kubeflow does not say why; look at 'kubectl -n {namespace} get workflows,events'"
        if "violates PodSecurity" in said:
            return f"{said}; Argo's own containers must keep to the level of the namespace: see docs/cluster.md, step 1"
        return said

    @cached_property
    def _pods(self) -> StepPods:
        from kubeyolo.launch.steps import StepPods

        return StepPods(self.namespace or _DEFAULT_NAMESPACE)

    def _read_log(self, run_id: str, node: str) -> str:
        text = self._get_text(
            f"log of {node}", "/apis/v1alpha1/runs/{run}/nodes/{node}/log", {"run": run_id, "node": node}, {}
        )
        # The server has said "200 OK" by the time it finds no log.
        return "" if text.startswith('{"error_message":') or text.startswith('{"error":') else text

    def _read_log_of_pages(self, run_id: str, pod: str) -> str:
        namespace = self.namespace or _DEFAULT_NAMESPACE
        query = {"podname": pod, "runid": run_id, "podnamespace": namespace}
        try:
            return self._get_text(f"log of {pod}", "/k8s/pod/logs", {}, query)
        except NoSuchThing:
            return ""
        except Unreachable as error:
            # With status 500 they say that neither the pod nor an archived log is there.
            if isinstance(error.__cause__, self._api.ApiException):
                return ""
            raise

    def _get_text(self, what: str, path: str, names: Mapping[str, str], query: Mapping[str, str]) -> str:
        response = self._call(
            what,
            self._client.call_api,
            path,
            "GET",
            path_params=dict(names),
            query_params=list(query.items()),
            auth_settings=["Bearer"],
            _preload_content=False,
            _return_http_data_only=True,
        )
        return str(response.data.decode("utf-8", "replace"))

    def _scope(self) -> dict[str, str]:
        return {"namespace": self.namespace} if self.namespace else {}

    def _pages(
        self, what: str, method: Callable[..., Any], field: str, *arguments: Any, **options: Any
    ) -> Iterator[Any]:
        token = ""
        while True:
            page = self._call(what, method, *arguments, page_size=_PAGE, page_token=token, **options)
            yield from getattr(page, field) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def _answered(self, request: Callable[..., Any]) -> Callable[..., Any]:
        """Return the request of the generated client, which refuses answers that are not those of Kubeflow's API.

        The client would make empty objects of the page of a login, which comes with status 200.
        """

        def checked(*arguments: Any, **options: Any) -> Any:
            response = request(*arguments, **options)
            if _is_page(response) or (options.get("_preload_content", True) and not _is_object(response.data)):
                raise self._no_api()
            return response

        return checked

    def _no_api(self) -> NoApi:
        return NoApi(
            f"Kubeflow at {self.host}: answers with a web page, not as Kubeflow's API does: a login that has expired, "
            f"or another address; renew {TOKEN}, and check --host or {HOST}"
        )

    def _call(self, what: str, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call the API and turn what goes wrong into one line."""
        import urllib3

        try:
            return method(*arguments, _request_timeout=_TIMEOUT_SECONDS, **options)
        except self._api.ApiException as error:
            if error.status in _NOT_FOR_A_PAGE and _looks_like_page(error.body):
                raise self._no_api() from error
            raise self._refused(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise Unreachable(
                f"Kubeflow at {self.host}: does not answer ({one_line(reason, LONGEST)}); check --host or {HOST}"
            ) from error
        except ValueError as error:
            raise InputError(
                f"Kubeflow at {self.host}: what answers does not speak its API, or asks for a login; "
                f"check --host, and set {TOKEN} where a token is needed"
            ) from error

    def _refused(self, what: str, error: Any) -> InputError:
        try:
            said = json.loads(error.body)
            message = said.get("message") or said.get("error") or ""
        except (TypeError, ValueError, AttributeError):
            message = error.reason or ""
        message = one_line(message, LONGEST)
        if error.status in (401, 403):
            return InputError(
                f"Kubeflow at {self.host}: refuses the credentials for {what} ({error.status} {message}); "
                f"set {TOKEN} to a valid token, and {NAMESPACE} to your namespace"
            )
        if error.status == 404:
            return NoSuchThing(f"{what}: not known at {self.host} ({message})")
        if error.status >= 500 and "database" not in message.lower():
            return Unreachable(f"Kubeflow at {self.host}: cannot answer for {what} ({error.status} {message})")
        return InputError(f"{what}: refused by Kubeflow at {self.host} ({error.status} {message})")


def _is_page(response: Any) -> bool:
    # A response that was read is one of the generated client around that of urllib3.
    headers = getattr(response, "urllib3_response", response).headers
    return "html" in str(headers.get("Content-Type", "")).lower()


def _looks_like_page(body: Any) -> bool:
    return str(body or "").lstrip().startswith("<")


def _is_object(data: Any) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False

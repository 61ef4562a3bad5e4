"""A training as a run of MLflow, if ``MLFLOW_TRACKING_URI`` is set.

The process of the step sends the rows, not the training processes: it reads the history in the output, to which each
checkpoint adds rows. So MLflow can neither slow down nor end a training, and the pods of a job need no key of MLflow.
MLflow has the rows up to the newest checkpoint. Rows that could not be sent are sent later: by the next attempt, or by
the next step that finds this training.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from kubeyolo.documents import NotJson, read_json
from kubeyolo.errors import InputError, InterruptedWork, KubeyoloError, one_line
from kubeyolo.formats import counted
from kubeyolo.output_streams import Show, print_line
from kubeyolo.steps.outcome import StoredOutcome
from kubeyolo.storage.base import NotFound
from kubeyolo.storage.place import Place
from kubeyolo.training.event_files import scalars_of
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.spec import TrainingSpec

TRACKING_URI, RUN_ID = "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"

RUN_NAME = "mlflow.json"
"""File of the output with the id of the run that a later attempt continues, unless ``MLFLOW_RUN_ID`` names a run."""

POLL_SECONDS = 30.0

EPOCH = "epoch"
BY_EPOCH = "by_epoch/"
"""Prefix of curves of validations whose x axis has epochs, from 1, in place of steps."""

# MLflow's client would repeat a request for minutes; the points are sent again with the next rows anyway.
_CLIENT_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

_LARGEST_BATCH, _MOST_PARAMETERS, _LONGEST_VALUE = 1000, 100, 500
_NOT_IN_NAMES = re.compile(r"[^\w.\- /]")
_MARKS = {"train": "loss/total", "pretrain": "loss/classification", "val": "validation/AP"}
"""By kind of the rows, the curve whose last step shows which rows MLflow has."""


@dataclass
class MlflowRun:
    """Sends the rows of a history to a run of MLflow; a failure is reported once, and the rows are kept for later.

    Attributes:
        spec: The training.
        output: Its output.
        show: Shows a line.
    """

    spec: TrainingSpec
    output: Place
    show: Show = print_line
    _client: Any = None
    _id: str = ""
    _is_own: bool = False
    _sent: dict[str, int] = field(default_factory=dict)
    _refused: int = 0
    _is_away: bool = False
    _lock: Any = field(default_factory=threading.RLock)

    def send(self) -> None:
        """Send the rows that MLflow does not have; the first call opens the run and sends the settings."""
        with self._lock, self._kept_for_later():
            self._open()
            for rows in _batches(self._unsent()):
                self._send_rows(rows)
                self._is_away = False

    def finish(self, stored: StoredOutcome) -> None:
        """Send the rest, the report, and the URI of the bundle."""
        self.send()
        with self._lock, self._kept_for_later():
            self._open()
            record = stored.record
            outputs = {name: text for name, text in record.outputs.items() if text}
            for name, text in {"output": self.output.uri, **outputs}.items():
                self._client.set_tag(self._id, f"kubeyolo.{name}", text)
            html = stored.report().decode()
            if html:
                self._client.log_text(self._id, html, f"reports/{record.step}.html")
        self.end("FINISHED")

    def end(self, status: str) -> None:
        """Set the status of a run that was created here, and warn about rows that MLflow does not have."""
        if self._is_own and self._id:
            with suppress(Exception):
                self._client.set_terminated(self._id, status)
        missing = len(self._unsent())
        if missing or self._refused:
            self.show(
                f"warning: MLflow did not receive {counted(missing + self._refused, 'row')} of the history; "
                f"{self.output.uri}/{FILE_NAME} has all rows, and the same command sends the missing rows"
            )

    def _open(self) -> None:
        """Open the run: that of ``MLFLOW_RUN_ID``, that of an earlier attempt, or a new run."""
        if self._id:
            return
        os.environ |= {name: value for name, value in _CLIENT_DEFAULTS.items() if name not in os.environ}
        logging.getLogger("urllib3.connectionpool").addFilter(_is_not_of_mlflow)
        # Only here: it takes seconds, and is not needed without MLflow.
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        named = os.environ.get(RUN_ID, "")
        run_id = named or self._earlier_run(client) or self._new_run(client)
        self._send_settings(client, run_id)
        for kind, name in _MARKS.items():
            points = client.get_metric_history(run_id, name)
            self._sent[kind] = max((point.step for point in points), default=-1)
        self._client, self._id, self._is_own = client, run_id, not named
        if not named:
            client.update_run(run_id, status="RUNNING")
        self.show(f"MLflow: run {run_id}")

    def _earlier_run(self, client: Any) -> str:
        """Return the run of an earlier attempt; empty if there is none, or if the server does not have it."""
        from mlflow.exceptions import RestException

        try:
            document = read_json((self.output / RUN_NAME).read(), RUN_NAME)
        except (NotFound, NotJson):
            return ""
        with suppress(RestException, KeyError):
            return str(client.get_run(document["run_id"]).info.run_id)
        return ""

    def _new_run(self, client: Any) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "") or "kubeyolo"
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "")
        if not experiment:
            existing = client.get_experiment_by_name(name)
            experiment = existing.experiment_id if existing else client.create_experiment(name)
        run = client.create_run(experiment, run_name=self.output.name)
        with suppress(KubeyoloError):  # The output of a finished training may be read-only.
            (self.output / RUN_NAME).write(orjson.dumps({"run_id": run.info.run_id}))
        return str(run.info.run_id)

    def _send_settings(self, client: Any, run_id: str) -> None:
        """Send the settings that the run does not have: MLflow refuses to change a parameter."""
        from mlflow.entities import Param

        sent = client.get_run(run_id).data.params
        settings = _flat(self.spec.config.model_dump(mode="json"))
        missing = [Param(key, text[:_LONGEST_VALUE]) for key, text in settings.items() if key not in sent]
        for start in range(0, len(missing), _MOST_PARAMETERS):
            client.log_batch(run_id, params=missing[start : start + _MOST_PARAMETERS])

    def _unsent(self) -> list[HistoryRow]:
        try:
            rows = TrainingHistory.from_bytes((self.output / FILE_NAME).read()).rows
        except (NotFound, InputError):
            return []
        return [row for row in rows if row.kind in _MARKS and row.step > self._sent.get(row.kind, -1)]

    def _send_rows(self, rows: list[HistoryRow]) -> None:
        from mlflow.entities import Metric
        from mlflow.exceptions import RestException

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, step) for row in rows for name, value, step in points_of(row)]
        try:
            self._client.log_batch(self._id, metrics=metrics)
        except RestException as error:
            # The server has answered: it would refuse these rows later, too.
            if not self._refused:
                reason = _without_password(one_line(error, 200))
                self.show(f"warning: MLflow refuses points: {reason}; the training continues")
            self._refused += len(rows)
        for row in rows:
            self._sent[row.kind] = row.step

    @contextmanager
    def _kept_for_later(self) -> Iterator[None]:
        """Report the first failure in a row; MLflow's client raises errors of several packages."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no error here may end a training
            if not self._is_away:
                self._is_away = True
                reason = _without_password(one_line(f"{type(error).__name__}: {error}", 200))
                address = _without_password(os.environ[TRACKING_URI])
                self.show(
                    f"warning: MLflow at {address} cannot be used ({reason}); "
                    "the training continues, and the missing rows are sent again every "
                    f"{POLL_SECONDS:.0f} s until it ends"
                )


@contextmanager
def mlflow_run(spec: TrainingSpec, output: Place, show: Show = print_line) -> Iterator[MlflowRun | None]:
    """Send a training to MLflow while the block runs; yield None if ``MLFLOW_TRACKING_URI`` is not set.

    A thread sends the rows of the history. Call :meth:`MlflowRun.finish` in the block with the outcome.
    """
    if not os.environ.get(TRACKING_URI):
        yield None
        return
    if importlib.util.find_spec("mlflow") is None:
        show(
            f"warning: nothing is sent to MLflow: {TRACKING_URI} is set, but mlflow-skinny is not installed; "
            "install it with: pip install 'kubeyolo[mlflow]'"
        )
        yield None
        return
    run, over = MlflowRun(spec, output, show), threading.Event()

    def follow() -> None:
        run.send()
        while not over.wait(POLL_SECONDS):
            run.send()

    thread = threading.Thread(target=follow, daemon=True, name="mlflow")
    thread.start()
    try:
        yield run
    except BaseException as error:
        run.send()
        run.end("KILLED" if isinstance(error, InterruptedWork) else "FAILED")
        raise
    finally:
        over.set()
        thread.join()


def points_of(row: HistoryRow) -> Iterator[tuple[str, float, int]]:
    """Yield name, value and step of the points that a row adds to curves; a validation adds points by epoch, too."""
    for name, value in scalars_of(row):
        group, _, last = name.rpartition("/")
        # A name of a class may have any characters.
        plain = _NOT_IN_NAMES.sub("_", name)
        if row.ap_by_class and last not in ("AP", "AP50"):
            head, _, of_class = name.partition("/")
            plain = f"{head}/{_NOT_IN_NAMES.sub('_', of_class).replace('/', '_')}"
        yield plain, value, row.step
        if row.kind == "val" and group == "validation":
            yield f"{BY_EPOCH}{last}", value, row.epoch + 1
    if row.loss is not None:
        yield EPOCH, float(row.epoch + 1), row.step


def _batches(rows: list[HistoryRow]) -> Iterator[list[HistoryRow]]:
    """Yield rows in parts with at most as many points as MLflow accepts in a request."""
    part: list[HistoryRow] = []
    points = 0
    for row in rows:
        more = sum(1 for _ in points_of(row))
        if part and points + more > _LARGEST_BATCH:
            yield part
            part, points = [], 0
        part.append(row)
        points += more
    if part:
        yield part


def _without_password(text: str) -> str:
    """Return a text without the names and passwords in its URIs."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _is_not_of_mlflow(record: logging.LogRecord) -> bool:
    """Tell whether a log record of urllib3 is not about a request to MLflow, whose failures are reported once."""
    return "/mlflow" not in record.getMessage()


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return nested settings by dotted key, as text."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = str(value)
    return flat

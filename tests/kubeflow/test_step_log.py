"""The lines of a step among those of the machinery, in the form in which Argo 4 and Kubeflow 2.17 write them."""

from __future__ import annotations

from kubeyolo.events import Event
from kubeyolo.kubeflow.follow import own_lines

LOG = f"""\
time=2026-11-21T13:13:07.888Z level=INFO msg="waiting for signals" argo=true signalPath=/var/run/argo/signal
I1121 13:13:07.912495      15 main.go:67] Setting log level to: '1'
[KFP Executor 2026-11-21 13:13:07,997 INFO]: Got executor_input:
{{
    "inputs": {{
        "parameterValues": {{}}
    }}
}}
{Event("started", "train").line()}
epoch[0], iter[30], loss:1.2
  an indented line
{{
"a document": "of the step"
}}
Information: a word that begins with an I
{Event("finished", "train", {"record": "minio://k/trainings/x/metrics.json", "seconds": 61.25}).line()}
[KFP Executor 2026-11-21 13:13:08,996 INFO]: Wrote executor output file to /minio/output_metadata.json.
I1121 13:13:09.077772      15 launcher_v2.go:1230] ExecutorOutput: {{
  "artifacts": {{
  }}
}}
I1121 13:13:09.125912      15 launcher_v2.go:206] train success.
time=2026-11-21T13:13:09.889Z level=INFO msg="sub-process exited" error=<nil> argo=true
"""


def test_the_lines_of_the_machinery_and_its_documents_are_left_out() -> None:
    assert list(own_lines(LOG.splitlines())) == [
        "epoch[0], iter[30], loss:1.2",
        "  an indented line",
        "{",
        '"a document": "of the step"',
        "}",
        "Information: a word that begins with an I",
        "finished after 61.2 s: minio://k/trainings/x/metrics.json",
    ]


def test_a_document_that_is_cut_off_hides_no_error() -> None:
    begin = "I1121 13:13:09.077772 15 launcher_v2.go:1] ExecutorOutput: {"
    assert list(own_lines([begin, '  "x": 1', "error: train: the loss is not finite", "after it"])) == [
        "error: train: the loss is not finite",
        "after it",
    ]


def test_a_log_that_ends_within_a_document_is_read_to_its_end() -> None:
    assert list(own_lines(["a", "I1121 13:13:09.077772 15 launcher_v2.go:1] ExecutorOutput: {", '  "x": 1'])) == ["a"]

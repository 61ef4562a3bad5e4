"""What a step has printed itself, among the lines of Argo and of Kubeflow that its log on a cluster is full of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kubeyolo.events import parse_event

# Argo's emissary, Kubeflow's launcher (klog), and the executor of kfp.
_MACHINERY = re.compile(r"time=\S+ level=\w+ |[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ |\[KFP Executor ")


def own_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a step's log that are its own; the event of its end in words.

    The machinery writes documents too: JSON of several lines, begun by one of its lines or right after it.
    """
    in_document = after_machinery = False
    for line in lines:
        is_machinery, event = _MACHINERY.match(line) is not None, parse_event(line)
        # A document that was cut off, or whose end is lost among other lines, must not hide what comes after it.
        if in_document and not (is_machinery or event or line.startswith("error: ")):
            in_document = line != "}"
            continue
        in_document = (is_machinery and line.endswith("{")) or (after_machinery and line == "{")
        after_machinery = is_machinery
        if is_machinery or in_document:
            continue
        if event is None:
            yield line
        elif event.kind == "finished":
            yield f"finished after {event.fields['seconds']:.1f} s: {event.fields['record']}"

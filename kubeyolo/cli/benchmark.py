"""``kubeyolo benchmark``: how fast the networks of a bundle are on this machine."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from kubeyolo.bundle import Bundle
from kubeyolo.cli.options import BundleArgument, JsonOption
from kubeyolo.cli.tables import new_table, wide_console
from kubeyolo.errors import InputError
from kubeyolo.formats import counted, size_or_dash
from kubeyolo.storage.file_errors import file_errors, writable_folder
from kubeyolo.storage.place import Place

_SECONDS = 2.0
_ROUNDS = 3


def benchmark(
    uri: BundleArgument,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="Runtimes, separated by commas: mindspore, onnx, int8, mindir, openvino, openvino-int8; by default "
            "all that are installed.",
        ),
    ] = "",
    batch: Annotated[str, typer.Option("--batch", help="Images of a batch; several with commas.")] = "1",
    threads: Annotated[
        str, typer.Option("--threads", help="Processor cores to use; several with commas; by default all.")
    ] = "",
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Seconds of a round of a network.")] = _SECONDS,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds, in which the networks take turns.")] = _ROUNDS,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Where to write a report, as HTML.")
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="URI",
            help="Where to write a copy of the bundle that keeps the results; its model card has them when it is "
            "published.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure latency, images per second and memory of the networks of a bundle on this machine.

    The time is that of the network with its decoding, for random images of the size in the bundle: letterbox and
    non-maximum suppression are not included. Each network has a process of its own.

    [bold]Examples[/bold]

      kubeyolo benchmark store/models/yolov5n-r7/1.0 --runtime onnx,int8

      kubeyolo benchmark store/models/yolov5n-r7/1.0 --batch 1,8 --threads 1,2 --report speed.html

      kubeyolo benchmark store/models/yolov5n-r7/1.0 --output store/measured
    """
    # Imported here: help needs neither numpy nor the networks.
    from kubeyolo.evaluation.speed import measure_speed, speed_cases
    from kubeyolo.progress import Progress
    from kubeyolo.resources import processor_name, usable_processors
    from kubeyolo.steps.given_bundle import given_bundle

    bundle = given_bundle(Place.of(uri))
    target = Place.of(output) if output else None
    _check_outputs(bundle, report, target)
    counts = _numbers("--threads", threads) if threads else [usable_processors()]
    cases = speed_cases(bundle, _runtimes(bundle, runtime), _numbers("--batch", batch), counts)
    with Progress("measuring", len(cases) * rounds) as progress:
        speeds, notes = measure_speed(bundle, cases, seconds, rounds, progress.advance)
    machine = f"{processor_name()}, {counted(usable_processors(), 'core')}"
    document = {"machine": machine, "bundle": bundle.reference, "speeds": [asdict(each) for each in speeds]}
    if report is not None:
        from kubeyolo.report.speed import speed_report

        with file_errors(report):
            report.write_text(speed_report(bundle.manifest.model, document), encoding="utf-8")
    if target is not None:
        from kubeyolo.publishing import derive_bundle

        figures = {"machine": machine, "speeds": document["speeds"]}
        derived = derive_bundle(
            bundle, target, {}, step="benchmark", metrics={**bundle.manifest.metrics, "benchmark": figures}
        )
        document["output"] = derived.reference
    if as_json:
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    _print(document, notes)


def _check_outputs(bundle: Bundle, report: Path | None, target: Place | None) -> None:
    """Refuse outputs that cannot be written, before the networks are measured.

    Raises:
        InputError: The report has the path of a folder, its folder or the store of the new bundle cannot be written, or
            the new bundle has the folder of the given bundle.
    """
    if report is not None:
        if report.is_dir():
            raise InputError(f"--report {report}: is a folder; give a file, such as {report / 'speed.html'}")
        writable_folder("--report", report.parent)
        if report.exists() and not os.access(report, os.W_OK):
            raise InputError(f"--report {report}: the file is not writable; give a different file")
    if target is not None:
        # Imported here, as in the command.
        from kubeyolo.publishing import check_apart

        check_apart(bundle, target)
        target.store.check_writable()


def _runtimes(bundle: Bundle, text: str) -> list[str]:
    """Return the given runtimes, or all for which the bundle has a file and this machine has the library."""
    from kubeyolo.evaluation.network_files import NETWORK_FILES
    from kubeyolo.evaluation.results import NEED_MINDSPORE, NEED_OPENVINO

    if text:
        return [name.strip() for name in text.split(",")]
    missing: list[str] = [] if find_spec("mindspore") else [*NEED_MINDSPORE]
    missing += [] if find_spec("openvino") else [*NEED_OPENVINO]
    names: list[str] = [
        name for name, file in NETWORK_FILES.items() if file in bundle.manifest.files and name not in missing
    ]
    if not names:
        raise InputError(
            f"{bundle.uri}: this machine can run none of its networks; install MindSpore (kubeyolo[train]), or export "
            "the bundle to ONNX"
        )
    return names


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(each) for each in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: expected numbers with commas, such as {option} 1,2") from None


def _print(document: dict[str, Any], notes: list[str]) -> None:
    print(f"{document['machine']}; a time is that of one batch")
    table = new_table("runtime", "batch", "threads", "p50 ms", "p90 ms", "p99 ms", "images/s", "memory")
    for each in document["speeds"]:
        latency = each["latency_ms"]
        table.add_row(
            each["runtime"],
            str(each["batch"]),
            str(each["threads"]),
            *(f"{latency[name]:.2f}" for name in ("p50", "p90", "p99")),
            f"{each['images_per_second']:.1f}",
            size_or_dash(each["memory"]),
        )
    wide_console().print(table)
    for line in notes:
        print(f"note: {line}")
    if "output" in document:
        print(f"bundle: {document['output']}")

"""``kubeyolo compare``: two bundles on the same images, with the interval of their difference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from kubeyolo.cli.evaluations import given_data
from kubeyolo.cli.judging import SplitOption, split_pairs
from kubeyolo.cli.late_import import import_late
from kubeyolo.cli.options import (
    DEFAULT_STORE,
    ClusterOption,
    ClusterSetOption,
    ConfigOption,
    DataArgument,
    JsonOption,
    LauncherOption,
    OutputOption,
    SetOption,
    StoreOption,
    sets_of,
)
from kubeyolo.cli.streams import stored_work
from kubeyolo.cli.tables import new_table, wide_console
from kubeyolo.config.form import fill_form
from kubeyolo.config.load import load_config
from kubeyolo.documents import read_json
from kubeyolo.errors import InputError
from kubeyolo.source import results_source
from kubeyolo.storage.place import Place

if TYPE_CHECKING:
    from kubeyolo.evaluation.results import RuntimeName
    from kubeyolo.steps import facade
else:
    # Help does not need the steps.
    facade = import_late("kubeyolo.steps.facade")

_SHOWN_IMAGES = 5


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="URI of a bundle.")],
    second: Annotated[str, typer.Argument(metavar="B", help="URI of the bundle to compare with A.")],
    dataset: DataArgument,
    split: SplitOption = "",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="Runtime: mindspore, onnx, int8, mindir, openvino or openvino-int8; two with a comma, for A and "
            "for B.",
        ),
    ] = "mindspore",
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    launcher: LauncherOption = "",
    cluster: ClusterOption = None,
    cluster_sets: ClusterSetOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two bundles on the same images: metrics, the interval of their difference, classes, images.

    Each bundle is evaluated as by 'kubeyolo evaluate'; stored evaluations are used again. With --json, comparison.json
    is printed.

    [bold]Examples[/bold]

      kubeyolo compare store/models/yolov5n-r7/1.0 store/models/yolov5n-r7/1.1 store/datasets/bccd-3f0c9a1b22d4

      kubeyolo compare BUNDLE BUNDLE DATASET --runtime onnx,int8 --split test
    """
    from kubeyolo.launch.launcher import find_launcher
    from kubeyolo.steps.call import StepCall
    from kubeyolo.steps.compare import COMPARISON_NAME, Network
    from kubeyolo.steps.configure import bundle_config
    from kubeyolo.steps.given_bundle import given_bundle

    runtimes = _runtimes(runtime)
    pairs = [*sets_of(sets), *split_pairs(split)]
    load_config(None, config_file, pairs)
    started_by = find_launcher(launcher, None, cluster, sets_of(cluster_sets), "evaluate", must_run=True)
    place, form = Place.of(store), fill_form((), None, config_file, pairs)
    networks = []
    for uri, each in zip((first, second), runtimes, strict=True):
        bundle = given_bundle(place.at(uri))
        config = started_by.placed(bundle_config(bundle.manifest, form)).config
        started_by.check(config, ["evaluate"], is_remote=False)
        networks.append(Network(bundle=bundle, config=config, runtime=each))
    target = place.at(output) if output else None
    call = StepCall(store=place, config=networks[1].config, code=results_source(), output=target)
    with stored_work(as_json):
        stored = facade.compare(call, (networks[0], networks[1]), given_data(call, dataset, as_json), started_by)
    document = stored.document(COMPARISON_NAME)
    if as_json:
        print(document.decode())
        return
    _print_comparison(read_json(document, COMPARISON_NAME))
    print(f"report: {stored.record.report}")


def _runtimes(text: str) -> tuple[RuntimeName, RuntimeName]:
    from kubeyolo.evaluation.results import check_runtime

    names = [check_runtime(name.strip()) for name in text.split(",")]
    if len(names) > 2:
        raise InputError(f"--runtime {text}: give one runtime, or two with a comma, for A and for B")
    return names[0], names[-1]


def _print_comparison(document: dict[str, Any]) -> None:
    """Print the metrics, the classes, the decision by the interval, and the images that differ most."""
    console, level = wide_console(), f"{100 * document['level']:g} %"
    for mark, each in zip("AB", document["bundles"], strict=True):
        print(f"{mark}: {each['bundle']} ({each['model']}, {each['runtime']})")
    console.print(_table("metric", document["numbers"], level))
    console.print(_table("class", document["classes"], level))
    print(document["verdict"])
    for each in document["most_different"][:_SHOWN_IMAGES]:
        a, b = each["first"], each["second"]
        print(
            f"{each['file_name']}: A misses {a['missed']} and has {a['false_alarms']} false alarms, "
            f"B misses {b['missed']} and has {b['false_alarms']}"
        )


def _table(name: str, rows: list[dict[str, Any]], level: str) -> Table:
    from kubeyolo.report.formats import number3

    table = new_table(name, "A", "B", "points", f"{level} interval")
    for row in rows:
        points = "–" if row["points"] is None else f"{row['points']:+.2f}"
        ends = "" if row["interval"] is None else "{:+.2f} to {:+.2f}".format(*row["interval"])
        table.add_row(row["name"], number3(row["first"]), number3(row["second"]), points, ends)
    return table

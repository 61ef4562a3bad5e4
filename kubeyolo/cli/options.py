"""Options that several commands share."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kubeyolo.config.key_types import key_types
from kubeyolo.errors import split_pair
from kubeyolo.storage.cache import RUNS

StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="KUBEYOLO_STORE",
        metavar="URI",
        help="Store of data sets, checkpoints and models: a folder, or minio://bucket/prefix.",
    ),
]
DEFAULT_STORE = "store"

RunsOption = Annotated[
    Path, typer.Option("--runs", envvar=RUNS, metavar="FOLDER", help="Folder of the runs on this machine.")
]
DEFAULT_RUNS = Path("runs")

ImagesOption = Annotated[
    Path, typer.Option("--images", metavar="FILE", help="Image references by image name, as 'make images' writes them.")
]
DEFAULT_IMAGES = Path("build/images.yaml")

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", metavar="NAME", help="Model; see 'kubeyolo models list'.")
]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        metavar="URI",
        help="Detector to start from: a bundle, a pointer to a bundle, or a published file of weights.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file of values that override the model's preset."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Overrides preset and file, such as train.max_epoch=10."),
]
FieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="FIELD=VALUE",
        help="A field of the pipeline's form that has no option here, such as launcher=volcano.",
    ),
]
ResourcesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--resources",
        metavar="STEP.RESOURCE=QUANTITY",
        help="Processors or memory of the pod of a step: cpu, cpu_limit, memory, memory_request; train.memory=32Gi.",
    ),
]
LauncherOption = Annotated[
    str,
    typer.Option(
        "--launcher", metavar="NAME", help="local: on this machine; volcano: on a cluster.", show_default="local"
    ),
]
ClusterOption = Annotated[
    Path | None,
    typer.Option("--cluster", metavar="FILE", help="YAML file of settings of the cluster; see docs/cluster.md."),
]
ClusterSetOption = Annotated[
    list[str] | None,
    typer.Option("--cluster-set", metavar="KEY=VALUE", help="A setting of the cluster that overrides preset and file."),
]
OutputOption = Annotated[
    str,
    typer.Option("--output", "-o", metavar="URI", help="Folder or URI to write to; by default a folder of the store."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FormatOption = Annotated[
    str,
    typer.Option(
        "--format", metavar="NAME", help="Format of the data: coco, yolo, voc, cvat or labelme; by default recognized."
    ),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Refuse the data if there is any finding.")]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Stored data set, or a folder or URI of images and annotations, which is validated and stored.",
        show_default=False,
    ),
]
DatasetArgument = Annotated[
    str, typer.Argument(metavar="DATASET", help="URI of a stored data set, as 'kubeyolo validate' prints it.")
]
BundleArgument = Annotated[str, typer.Argument(metavar="BUNDLE", help="URI of a bundle.")]


def sets_of(sets: list[str] | None) -> tuple[str, ...]:
    """Return the pairs of ``--set``; empty if the option was not used."""
    return tuple(sets or ())


def resources_of(pairs: list[str] | None) -> dict[str, str]:
    """Return the quantities of ``--resources`` by step and resource; empty if the option was not used."""
    return dict(split_pair(pair, "--resources", "train.memory=32Gi", "STEP.RESOURCE=QUANTITY") for pair in pairs or ())


def typed_again(name: str, argument: str, options: Mapping[str, object]) -> Callable[[str], str]:
    """Return a function that returns the same command line with a different output, quoted for a shell.

    Args:
        name: The command.
        argument: Its argument.
        options: Values by option; a list for a repeated option; empty values are left out.
    """
    parts = ["kubeyolo", name, argument]
    for option, value in options.items():
        values = value if isinstance(value, list) else [value]
        parts += [part for each in values if each not in (None, "") for part in (option, str(each))]
    return lambda output: shlex.join([*parts, "--output", output])


def weights_pairs(weights: str) -> tuple[str, ...]:
    """Return the pair of ``--set`` that ``--weights`` stands for."""
    return (f"train.weights={json.dumps(weights)}",) if weights else ()


def flag_option(key: str) -> Any:
    """Return a flag and its opposite for a setting that is true or false, with the description of the setting."""
    name = key.rpartition(".")[2]
    text = key_types()[key].schema["description"]
    return typer.Option(f"--{name}/--no-{name}", help=f"{text} ({key})", show_default=False)


def flag_pairs(key: str, value: bool | None) -> tuple[str, ...]:
    """Return the pair of ``--set`` that a flag and its opposite stand for; empty if neither was given."""
    return () if value is None else (f"{key}={json.dumps(value)}",)


def data_pairs(data_format: str, strict: bool) -> tuple[str, ...]:
    """Return the pairs of ``--set`` that ``--format`` and ``--strict`` stand for."""
    pairs = (f"data.format={json.dumps(data_format)}",) if data_format else ()
    return (*pairs, "data.strict=true") if strict else pairs

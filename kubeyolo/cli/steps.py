"""The commands that do one step each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeyolo.cli.options import (
    DEFAULT_STORE,
    BundleArgument,
    ConfigOption,
    DatasetArgument,
    FormatOption,
    JsonOption,
    ModelOption,
    OutputOption,
    SetOption,
    StoreOption,
    StrictOption,
    data_pairs,
    sets_of,
    typed_again,
)
from kubeyolo.cli.streams import stored_work
from kubeyolo.cli.tables import print_record

if TYPE_CHECKING:
    from kubeyolo.config.schema import Config


def validate(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder or URI of a data set.")],
    store: StoreOption = DEFAULT_STORE,
    data_format: FormatOption = "",
    strict: StrictOption = False,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a data set and store it: every annotation, every image.

    COCO, YOLO, Pascal VOC, CVAT and LabelMe are read as annotation tools export them (docs/data.md). Faults that can be
    corrected are corrected and counted; --strict refuses the data set instead.

    [bold]Examples[/bold]

      kubeyolo validate data/bccd

      kubeyolo validate minio://kubeyolo/data/coco --store minio://kubeyolo

      kubeyolo validate data/export --strict --set data.findings.crowd_many=warn
    """
    from kubeyolo.config.load import load_config
    from kubeyolo.steps.validate import validate_dataset

    config = load_config(None, config_file, [*sets_of(sets), *data_pairs(data_format, strict)])
    with stored_work(as_json):
        record = validate_dataset(data, store, config=config).record
    print_record(record, as_json)


def pretrain(
    dataset: DatasetArgument,
    model: ModelOption = None,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pretrain a backbone as a classifier: on images by class, or on crops of the data set's objects.

    [bold]Examples[/bold]

      kubeyolo pretrain store/datasets/bccd-3f0c9a1b22d4 --model yolov5n-r7

      kubeyolo pretrain store/datasets/bccd-3f0c9a1b22d4 --set pretrain.data=data/cells --set pretrain.max_epoch=10
    """
    from kubeyolo.config.load import load_config
    from kubeyolo.source import weights_source
    from kubeyolo.steps.outputs import backbone_output
    from kubeyolo.steps.pretrain import pretrain_backbone
    from kubeyolo.training.class_images import class_fingerprint

    config = load_config(model, config_file, sets_of(sets))
    images = class_fingerprint(config.pretrain.data) if config.pretrain.data else _dataset_digest(dataset)
    output = output or backbone_output(store, config, images, weights_source())
    command = typed_again("pretrain", dataset, {"--model": model, "--config": config_file, "--set": sets})
    with stored_work(as_json):
        record = pretrain_backbone(dataset, output, config, command=command).record
    print_record(record, as_json, with_warnings=False)


def train(
    dataset: DatasetArgument,
    model: ModelOption = None,
    backbone: Annotated[
        str, typer.Option("--backbone", metavar="URI", help="Bundle of a pretrained backbone to start from.")
    ] = "",
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    launcher: Annotated[
        str, typer.Option("--launcher", metavar="NAME", help="local: on this machine; volcano: on a cluster.")
    ] = "local",
    cluster: Annotated[
        Path | None,
        typer.Option("--cluster", metavar="FILE", help="YAML file of settings of the cluster; see docs/cluster.md."),
    ] = None,
    cluster_sets: Annotated[
        list[str] | None,
        typer.Option("--cluster-set", metavar="KEY=VALUE", help="A setting of the cluster over all others."),
    ] = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a detector. The same command continues a training that was interrupted.

    [bold]Examples[/bold]

      kubeyolo train store/datasets/bccd-3f0c9a1b22d4 --model yolov5n-r7 --set train.max_epoch=50

      kubeyolo train minio://kubeyolo/datasets/coco-52d41a7c9e10 --config my.yaml --store minio://kubeyolo

      kubeyolo train minio://kubeyolo/datasets/coco-52d41a7c9e10 --store minio://kubeyolo --set train.processes=2
      --launcher volcano --cluster-set image=registry/kubeyolo-train@sha256:0a1b…
    """
    from kubeyolo.config.load import load_config
    from kubeyolo.launch.launcher import checked_settings, training_launcher, training_writer
    from kubeyolo.source import weights_source
    from kubeyolo.steps import train as step
    from kubeyolo.steps.outputs import training_output

    config = load_config(model, config_file, sets_of(sets))
    settings = checked_settings(launcher, None, cluster, sets_of(cluster_sets))
    launch = training_launcher(launcher, settings)
    output = output or training_output(store, config, _dataset_digest(dataset), _pinned(backbone), weights_source())
    options = {"--model": model, "--backbone": backbone, "--config": config_file, "--set": sets}
    options |= {"--launcher": "" if launcher == "local" else launcher}
    command = typed_again("train", dataset, options | {"--cluster": cluster, "--cluster-set": cluster_sets})
    with stored_work(as_json):
        writer = training_writer(launcher, namespace=settings.namespace)
        outcome = step.train(dataset, output, config, backbone, launch=launch, writer=writer, command=command)
    print_record(outcome.record, as_json, with_warnings=False)


def evaluate(
    bundle: BundleArgument,
    dataset: DatasetArgument,
    runtime: Annotated[str, typer.Option("--runtime", help="mindspore, onnx, int8 or mindir.")] = "mindspore",
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the 12 COCO numbers of a bundle on a data set.

    [bold]Examples[/bold]

      kubeyolo evaluate store/models/yolov5n-r7/1.0 store/datasets/bccd-3f0c9a1b22d4

      kubeyolo evaluate BUNDLE DATASET --runtime int8 --set evaluate.min_ap=0.5
    """
    from kubeyolo.evaluation.names import check_runtime
    from kubeyolo.steps import evaluate as step

    checked = check_runtime(runtime)
    config = _config_of(bundle, config_file, sets)
    output = output or _output(store, step.STEP, bundle, dataset, config, runtime)
    with stored_work(as_json):
        outcome = step.evaluate(bundle, dataset, output, config, checked)
    if not as_json:
        print(outcome.result.words())
    print_record(outcome.record, as_json)


def export(
    bundle: BundleArgument,
    dataset: DatasetArgument,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    r"""Export a trained bundle to MINDIR and ONNX, compare both with it, and evaluate the ONNX network.

    [bold]Examples[/bold]

      kubeyolo export store/trainings/yolov5n-r7-0a1b2c3d4e5f/bundle store/datasets/bccd-3f0c9a1b22d4

      kubeyolo export BUNDLE DATASET --set 'export.formats=\[onnx]'
    """
    from kubeyolo.steps import export as step

    config = _config_of(bundle, config_file, sets)
    output = output or _output(store, step.STEP, bundle, dataset, config)
    with stored_work(as_json):
        record = step.export_model(bundle, dataset, output, config).record
    print_record(record, as_json)


def quantize(
    bundle: BundleArgument,
    dataset: DatasetArgument,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quantize the ONNX network of a bundle to int8, evaluate it, and refuse it when it lost too much.

    [bold]Examples[/bold]

      kubeyolo quantize store/results/export_model/yolov5n-r7-8a395f92b1a0/bundle store/datasets/bccd-3f0c9a1b22d4

      kubeyolo quantize BUNDLE DATASET --set quantize.max_drop=0.5 --set quantize.calibration_images=128
    """
    from kubeyolo.steps import quantize as step

    config = _config_of(bundle, config_file, sets)
    output = output or _output(store, step.STEP, bundle, dataset, config)
    with stored_work(as_json):
        record = step.quantize(bundle, dataset, output, config).record
    print_record(record, as_json)


def publish(
    bundle: BundleArgument,
    version: Annotated[
        str, typer.Option("--version", metavar="NAME", help="Version; by default made from the content.")
    ] = "",
    evaluation: Annotated[
        str, typer.Option("--evaluation", metavar="URI", help="metrics.json of an evaluation, for the model card.")
    ] = "",
    latest: Annotated[str, typer.Option("--latest", metavar="URI", help="Pointer to move to this bundle.")] = "",
    store: StoreOption = DEFAULT_STORE,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a bundle under models/<model>/<version>/ of a store, with a model card.

    [bold]Examples[/bold]

      kubeyolo publish store/results/quantize/yolov5n-r7-8a395f92b1a0/bundle --version 1.0.0

      kubeyolo publish BUNDLE --store minio://kubeyolo --evaluation RECORD

      kubeyolo publish BUNDLE --store minio://kubeyolo --latest minio://kubeyolo/models/yolov5n-r7/latest.json
    """
    from kubeyolo.config.load import load_config
    from kubeyolo.pointers import check_pointer_name
    from kubeyolo.steps import publish as step
    from kubeyolo.steps.promote import make_current

    load_config(None, config_file, sets_of(sets))
    check_pointer_name(latest)
    with stored_work(as_json):
        published = step.publish(bundle, store, version, evaluation)
        if latest:
            make_current(latest, published.bundle)
    print_record(published.record, as_json)


def _dataset_digest(dataset: str) -> str:
    from kubeyolo.data.dataset import open_dataset

    return open_dataset(dataset).manifest.digest


def _pinned(bundle: str) -> str:
    from kubeyolo.bundle import bundle_reference

    return bundle_reference(bundle) if bundle else ""


def _config_of(bundle: str, config_file: Path | None, sets: list[str] | None) -> Config:
    """Return the configuration a bundle was trained with, under the file and the pairs that were given."""
    from kubeyolo.bundle import bundle_reference, open_manifest
    from kubeyolo.config.form import fill_form
    from kubeyolo.config.load import load_config
    from kubeyolo.steps.configure import bundle_config

    load_config(None, config_file, sets_of(sets))
    form = fill_form((), None, config_file, sets_of(sets))
    return bundle_config(open_manifest(bundle_reference(bundle)), form).config


def _output(store: str, step: str, bundle: str, dataset: str, config: Config, runtime: str = "") -> str:
    """Return where a step writes: the place that the same step of a pipeline has, whose result it takes or leaves."""
    from kubeyolo.bundle import bundle_reference
    from kubeyolo.source import results_source
    from kubeyolo.steps.outputs import result_output
    from kubeyolo.steps.settings import read_sections
    from kubeyolo.storage.reference import split_reference

    digests = {"bundle": split_reference(bundle_reference(bundle))[1], "dataset": _dataset_digest(dataset)}
    digests |= {"runtime": runtime} if runtime else {}
    return result_output(store, step, config.model, digests, read_sections(config, step), results_source())

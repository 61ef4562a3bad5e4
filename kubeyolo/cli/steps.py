"""The commands that run a single step."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kubeyolo.cli.evaluations import given_data, given_keys, print_evaluation, refuse_idle_arguments, refuse_idle_keys
from kubeyolo.cli.late_import import import_late
from kubeyolo.cli.options import (
    DEFAULT_STORE,
    BundleArgument,
    ClusterOption,
    ClusterSetOption,
    ConfigOption,
    DataArgument,
    DatasetArgument,
    FormatOption,
    JsonOption,
    LauncherOption,
    ModelOption,
    OutputOption,
    SetOption,
    StoreOption,
    StrictOption,
    WeightsOption,
    data_pairs,
    flag_option,
    flag_pairs,
    sets_of,
    typed_again,
    weights_pairs,
)
from kubeyolo.cli.streams import stored_work
from kubeyolo.cli.tables import print_record
from kubeyolo.config.form import fill_form
from kubeyolo.config.idle_settings import idle_settings
from kubeyolo.config.load import ResolvedConfig, load_config, load_resolved
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.source import results_source, weights_source
from kubeyolo.storage.place import Place

if TYPE_CHECKING:
    from kubeyolo.bundle import Bundle
    from kubeyolo.launch.launcher import Launcher
    from kubeyolo.steps import facade
    from kubeyolo.steps.call import StepCall
else:
    # Help does not need the steps.
    facade = import_late("kubeyolo.steps.facade")


def validate(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Folder or URI of a data set.")],
    store: StoreOption = DEFAULT_STORE,
    data_format: FormatOption = "",
    strict: StrictOption = False,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every annotation and every image of a data set, and store the data set.

    COCO, YOLO, Pascal VOC, CVAT and LabelMe are read as annotation tools export them (docs/data.md). Faults that can be
    corrected are corrected and counted; with --strict the data set is refused instead.

    [bold]Examples[/bold]

      kubeyolo validate data/bccd

      kubeyolo validate minio://kubeyolo/data/coco --store minio://kubeyolo

      kubeyolo validate data/export --strict --set data.findings.crowd_many=warn
    """
    config = load_config(None, config_file, [*sets_of(sets), *data_pairs(data_format, strict)])
    with stored_work(as_json):
        stored = facade.validate_dataset(_call(Place.of(store), config), data)
    print_record(stored.record, as_json)


def pretrain(
    dataset: DatasetArgument,
    model: ModelOption = None,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    launcher: LauncherOption = "",
    cluster: ClusterOption = None,
    cluster_sets: ClusterSetOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pretrain a backbone as a classifier: on images by class, or on crops of the data set's objects.

    [bold]Examples[/bold]

      kubeyolo pretrain store/datasets/bccd-3f0c9a1b22d4 --model yolov5n-r7

      kubeyolo pretrain store/datasets/bccd-3f0c9a1b22d4 --set pretrain.data=data/cells --set pretrain.max_epoch=10
    """
    started_by = _launcher("pretrain_backbone", launcher, cluster, cluster_sets)
    config = _placed(load_resolved(model, config_file, sets_of(sets)), started_by, "pretrain_backbone")
    options = {"--model": model, "--config": config_file, "--set": sets}
    options |= {"--launcher": launcher, "--cluster": cluster, "--cluster-set": cluster_sets}
    command = typed_again("pretrain", dataset, options)
    call = _call(Place.of(store), config, output, weights_source())
    with stored_work(as_json):
        stored = facade.pretrain_backbone(call, call.dataset(dataset), started_by, command=command)
    print_record(stored.record, as_json, with_warnings=False)


def train(
    dataset: DatasetArgument,
    model: ModelOption = None,
    weights: WeightsOption = "",
    backbone: Annotated[
        str, typer.Option("--backbone", metavar="URI", help="Bundle of a pretrained backbone to start from.")
    ] = "",
    sync_bn: Annotated[bool | None, flag_option("train.sync_bn")] = None,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    launcher: LauncherOption = "",
    cluster: ClusterOption = None,
    cluster_sets: ClusterSetOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a detector. Run the same command again to continue an interrupted training.

    [bold]Examples[/bold]

      kubeyolo train store/datasets/bccd-3f0c9a1b22d4 --model yolov5n-r7 --max_epoch 50

      kubeyolo train store/datasets/bccd-3f0c9a1b22d4 -m yolov4 --lr 0.012 --lr_scheduler cosine_annealing --t_max 320

      kubeyolo train store/datasets/bccd-3f0c9a1b22d4 --model yolov5s-r7 --weights yolov5s.pt

      kubeyolo train minio://kubeyolo/datasets/coco-52d41a7c9e10 --config my.yaml --store minio://kubeyolo

      kubeyolo train minio://kubeyolo/datasets/coco-52d41a7c9e10 --store minio://kubeyolo --set train.processes=2
      --launcher volcano --cluster-set image=registry/kubeyolo-train@sha256:0a1b…
    """
    from kubeyolo.steps.start import check_start
    from kubeyolo.steps.starting_weights import resolve_start

    started_by = _launcher("train", launcher, cluster, cluster_sets)
    sets = [*(sets or ()), *flag_pairs("train.sync_bn", sync_bn)]
    resolved = load_resolved(model, config_file, [*sets_of(sets), *weights_pairs(weights)])
    if backbone and resolved.config.train.weights:
        raise InputError(
            f"--backbone {backbone}, and train.weights = {resolved.config.train.weights}: the weights of a detector "
            "include its backbone; leave one of them out"
        )
    check_start(resolved)
    start = resolve_start(resolved, Place.of(store))
    for note in start.notes:
        print(note, flush=True, file=sys.stderr if as_json else sys.stdout)
    for line in idle_settings(start.resolved):
        print(f"note: {line}", file=sys.stderr)
    config = _placed(start.resolved, started_by, "train")
    options = {"--model": model, "--weights": weights, "--backbone": backbone, "--config": config_file, "--set": sets}
    options |= {"--launcher": launcher, "--cluster": cluster, "--cluster-set": cluster_sets}
    command = typed_again("train", dataset, options)
    call = _call(Place.of(store), config, output, weights_source())
    with stored_work(as_json):
        stored = facade.train(call, call.dataset(dataset), started_by, backbone, command)
    print_record(stored.record, as_json, with_warnings=False)


def evaluate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="URI of a bundle; left out with --detections.")],
    dataset: DataArgument = "",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            help="Runtime: mindspore, onnx, int8, mindir, openvino or openvino-int8.",
            show_default="mindspore",
        ),
    ] = "",
    detections: Annotated[
        Path | None,
        typer.Option("--detections", metavar="FILE", help="COCO results file of any program, to evaluate on DATA."),
    ] = None,
    test_dev: Annotated[
        bool,
        typer.Option("--test_dev", help="Write detections of images without annotations for COCO's test-dev server."),
    ] = False,
    tta: Annotated[bool | None, flag_option("evaluate.tta")] = None,
    rect: Annotated[bool | None, flag_option("evaluate.rect")] = None,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    launcher: LauncherOption = "",
    cluster: ClusterOption = None,
    cluster_sets: ClusterSetOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the 12 COCO metrics of a bundle, or of a file of detections, on a data set.

    With --test_dev, DATA is a folder of images, a folder with COCO's image_info_test-dev2017.json, or a stored data set
    whose split test has no annotations.

    [bold]Examples[/bold]

      kubeyolo evaluate store/models/yolov5n-r7/1.0 store/datasets/bccd-3f0c9a1b22d4

      kubeyolo evaluate BUNDLE data/bccd --runtime int8 --min_ap 0.5

      kubeyolo evaluate BUNDLE data/bccd --split test --testing_shape 384x640

      kubeyolo evaluate BUNDLE data/bccd --tta --image_size 896

      kubeyolo evaluate --detections results.json data/bccd

      kubeyolo evaluate BUNDLE data/coco --test_dev
    """
    from kubeyolo.evaluation.network_files import check_network
    from kubeyolo.evaluation.results import check_runtime
    from kubeyolo.steps.detection import check_size

    sets = [*(sets or ()), *flag_pairs("evaluate.tta", tta), *flag_pairs("evaluate.rect", rect)]
    if detections is not None:
        options = {"--runtime": runtime, "--launcher": launcher, "--test_dev": test_dev}
        refuse_idle_arguments(dataset, [name for name, value in options.items() if value], sets_of(sets))
        call = _call(Place.of(store), load_config(None, config_file, sets_of(sets)), output)
        _evaluate_detections(call, detections, bundle, as_json)
        return
    if not dataset:
        raise InputError("Missing argument 'DATA'; give a bundle and a data set: kubeyolo evaluate BUNDLE DATA")
    checked = check_runtime(runtime or "mindspore")
    if test_dev:
        keys = given_keys(config_file, sets)
        sets += ["evaluate.test_dev=true", *([] if "evaluate.split" in keys else ["evaluate.split=test"])]
    started_by = _launcher("evaluate", launcher, cluster, cluster_sets)
    call, opened = _call_on(bundle, store, output, config_file, sets, started_by, "evaluate")
    refuse_idle_keys("evaluate", call.config, config_file, sets, checked)
    check_network(opened, checked)
    check_size(opened.manifest, call.config, checked)
    with stored_work(as_json):
        stored = facade.evaluate(call, opened, given_data(call, dataset, as_json, opened), checked, started_by)
    print_evaluation(stored, as_json)


def export(
    bundle: BundleArgument,
    dataset: DatasetArgument,
    nms: Annotated[bool | None, flag_option("export.nms")] = None,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    launcher: LauncherOption = "",
    cluster: ClusterOption = None,
    cluster_sets: ClusterSetOption = None,
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export a trained bundle to MINDIR and ONNX, compare both with the trained network, evaluate the ONNX network.

    [bold]Examples[/bold]

      kubeyolo export store/trainings/yolov5n-r7-0a1b2c3d4e5f/bundle store/datasets/bccd-3f0c9a1b22d4

      kubeyolo export BUNDLE DATASET --formats onnx --nms --image_size 384x640
    """
    from kubeyolo.steps.export import check_export, exported_manifest

    sets = [*(sets or ()), *flag_pairs("export.nms", nms)]
    started_by = _launcher("export_model", launcher, cluster, cluster_sets)
    call, opened = _call_on(bundle, store, output, config_file, sets, started_by, "export_model")
    refuse_idle_keys("export", call.config, config_file, sets)
    check_export(call.config)
    exported_manifest(opened, call.config)
    with stored_work(as_json):
        stored = facade.export_model(call, opened, call.dataset(dataset), started_by)
    print_record(stored.record, as_json)


def quantize(
    bundle: BundleArgument,
    dataset: DatasetArgument,
    store: StoreOption = DEFAULT_STORE,
    output: OutputOption = "",
    config_file: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Quantize the ONNX network of a bundle to int8, evaluate it, and fail if it loses too much AP.

    [bold]Examples[/bold]

      kubeyolo quantize store/results/export_model/yolov5n-r7-8a395f92b1a0/bundle store/datasets/bccd-3f0c9a1b22d4

      kubeyolo quantize BUNDLE DATASET --set quantize.max_drop=0.5 --set quantize.calibration_images=128
    """
    call, opened = _call_on(bundle, store, output, config_file, sets)
    refuse_idle_keys("quantize", call.config, config_file, sets)
    with stored_work(as_json):
        stored = facade.quantize(call, opened, call.dataset(dataset))
    print_record(stored.record, as_json)


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
    from kubeyolo.pointers import check_pointer_name, read_model_version
    from kubeyolo.steps.promote import make_current

    config = load_config(None, config_file, sets_of(sets))
    check_pointer_name(latest)
    call = _call(Place.of(store), config)
    with stored_work(as_json):
        if latest:
            # A pointer that cannot be read is refused before anything is published.
            read_model_version(call.store.at(latest))
        stored = facade.publish(call, call.bundle(bundle), version, evaluation)
        if latest:
            make_current(call.store.at(latest), stored.bundle())
    print_record(stored.record, as_json)


def _evaluate_detections(call: StepCall, file: Path, data: str, as_json: bool) -> None:
    """Evaluate a COCO results file on a data set, and print the metrics."""
    from kubeyolo.evaluation.results_file import read_file

    read_file(file)  # A file that cannot be read is refused before data are validated.
    with stored_work(as_json):
        stored = facade.evaluate_file(call, file, given_data(call, data, as_json))
    print_evaluation(stored, as_json)


def _call(store: Place, config: Config, output: str = "", code: str = "") -> StepCall:
    """Return the arguments that all steps have in common; ``code`` is by default the digest of this version."""
    from kubeyolo.steps.call import StepCall

    target = store.at(output) if output else None
    return StepCall(store=store, config=config, code=code or results_source(), output=target)


def _call_on(
    bundle: str,
    store: str,
    output: str,
    config_file: Path | None,
    sets: list[str] | None,
    launcher: Launcher | None = None,
    step: str = "",
) -> tuple[StepCall, Bundle]:
    """Return the arguments that all steps have in common, for a step on a bundle, and the bundle.

    The configuration is that of the bundle, overridden by the file and the pairs; the launcher sets the device of the
    step, if the step has a job.
    """
    from kubeyolo.steps.configure import bundle_config
    from kubeyolo.steps.given_bundle import given_bundle

    load_config(None, config_file, sets_of(sets))
    form, place = fill_form((), None, config_file, sets_of(sets)), Place.of(store)
    opened = given_bundle(place.at(bundle))
    config = _placed(bundle_config(opened.manifest, form), launcher or facade.HERE, step)
    return _call(place, config, output), opened


def _launcher(step: str, name: str, file: Path | None, sets: list[str] | None) -> Launcher:
    """Return the launcher of a command; on a cluster its step has a job unless a setting says otherwise."""
    from kubeyolo.launch.launcher import find_launcher

    return find_launcher(name, None, file, sets_of(sets), step, must_run=True)


def _placed(resolved: ResolvedConfig, launcher: Launcher, step: str) -> Config:
    """Return a configuration with the devices of the launcher, which must fit its settings."""
    placed = launcher.placed(resolved).config
    launcher.check(placed, [step], is_remote=False)
    return placed

"""configure: everything is checked before work begins, and equal settings make equal runs, whoever gives them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubeyolo.bundle import MINDIR, ONNX, ONNX_INT8, WEIGHTS, BundleManifest, read_bundle
from kubeyolo.catalogue import DETECTOR_RETRAINING, DETECTOR_TRAINING, FIELDS, MODEL_EVALUATION, STEPS
from kubeyolo.cli.forms import training_form
from kubeyolo.compiled.pipeline import CompiledPipeline
from kubeyolo.compiled.resources import MEMORY_LIMITS
from kubeyolo.config.load import flatten, load_config, preset_names, resolve_layers
from kubeyolo.config.schema import Config
from kubeyolo.data.class_images import class_fingerprint
from kubeyolo.data.digest import source_facts
from kubeyolo.data.sample import generate_sample_dataset
from kubeyolo.errors import InputError
from kubeyolo.index import RUN_ID, STORE, read_note, run_output, store_id
from kubeyolo.kubeflow.schedules import read_schedules, wanted_schedule
from kubeyolo.launch import launcher
from kubeyolo.models.named_facts import model_facts
from kubeyolo.pointers import ModelPointer, read_model_version, write_model_pointer
from kubeyolo.publishing import publish_bundle
from kubeyolo.report.model_card import escape
from kubeyolo.source import results_source, weights_source
from kubeyolo.steps import component, facade
from kubeyolo.steps.checked_form import check_form, check_settings, parse_cluster
from kubeyolo.steps.configure import bundle_config, configure
from kubeyolo.steps.configured_run import ConfiguredRun
from kubeyolo.steps.outcome import read_record
from kubeyolo.steps.settings import StepSettings
from kubeyolo.storage.place import Place

MODEL = "yolov5n-r7"
NEEDED = {"data": "minio://data/x", "store": "minio://kubeyolo"}
ASCEND = {"launcher": "volcano", "cluster": "ascend910b"}
SOME = {
    DETECTOR_TRAINING: NEEDED,
    DETECTOR_RETRAINING: {"pointer": "minio://data/latest.json", "store": "minio://kubeyolo"},
    MODEL_EVALUATION: NEEDED | {"bundle": "minio://models/new"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_sample_dataset(tmp_path_factory.mktemp("data") / "shapes", train=2, val=1, image_size=(64, 64))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def train(data: Path, store: str) -> Callable[..., ConfiguredRun]:
    """Configure a training on folders of this machine."""

    def configured(**form: str) -> ConfiguredRun:
        return configure(DETECTOR_TRAINING, {"data": str(data), "store": store, **form})

    return configured


def nested(settings: Mapping[str, Any]) -> dict[str, str]:
    return {"settings": json.dumps(settings)}


def structs(run: ConfiguredRun) -> dict[str, dict[str, Any]]:
    """Return what the steps are handed: what Kubeflow's cache keys are made of."""
    return {name: given.struct() for name, given in run.settings.items()}


# What can be told from the form alone.


@pytest.mark.parametrize("pipeline", SOME)
def test_a_form_that_makes_sense_is_taken(pipeline: str) -> None:
    checked = check_form(pipeline, SOME[pipeline], is_remote=True)
    assert checked.store == "minio://kubeyolo"
    assert checked.resolved.config == load_config()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (nested({"train": {"warmup_epoch": 1}}), "did you mean 'train.warmup_epochs'"),
        ({"image_size": "100"}, "train.image_size = '100'"),
        ({"model": "yolov5nn-r7"}, "unknown model 'yolov5nn-r7'; did you mean 'yolov5n-r7'"),
        ({"model": "yolov4-p7", "image_size": "96"}, "train.image_size = 96: yolov4-p7 needs a multiple of 128"),
        ({"min_ap": "50.0"}, "evaluate.min_ap = '50.0' .*expected a number >= 0 and <= 1"),
        ({"min_ap": "-1"}, "evaluate.min_ap = '-1'"),
        (nested({"evaluate": {"min_ap": 7}}), "evaluate.min_ap = 7"),
        ({"max_drop": "-3"}, "quantize.max_drop = '-3' .*expected a number >= 0"),
        ({"max_drop": "nan"}, "quantize.max_drop = 'nan'"),
        (nested({"export": {"formats": ["mindir"]}}), "the pipeline quantizes the ONNX network; add onnx"),
        (nested({"export": {"formats": ["onnx", "air"]}}), "air can be written on an Ascend device only"),
        ({"version": "../x y"}, "version '../x y': expected letters, digits"),
        ({"version": "latest.json"}, "the name of the pointer to the"),
        ({"weights": "models/old.pt"}, "train.weights = models/old.pt: pods cannot read folders of this machine; copy"),
        (
            {"weights": "minio://m/old", **nested({"pretrain": {"enabled": True}})},
            "train.weights = minio://m/old, and pretrain.enabled = true: .*leave one of them out",
        ),
        (nested({"train": {"freeze": ["model.0.*"]}}), r"train.freeze: 'model.0.\*' matches no parameter: names start"),
        (nested({"train": {"freeze": "*"}}), r"train.freeze = \['\*'\] freezes all parameters"),
        (nested({"train": {"freeze": ["backbone", "neck.*", "h*"]}}), "freezes all parameters.*leave out a part"),
        ({"weights": "https://a.org/yolov5s.pt"}, "train.weights = https:.* is a web address, and kubeyolo"),
        (nested({"recipe": "fine-tune"}), "recipe = 'fine-tune' .*expected one of empty, scratch, finetune"),
        ({"launcher": "vulcano"}, "did you mean 'volcano'"),
        ({"cluster": "cpu"}, "cluster is set, but launcher is local; set launcher to volcano"),
        (
            {"launcher": "local", "cluster": '{"queue": "x"}'},
            "cluster is set, but launcher is local; set launcher to volcano",
        ),
        ({"launcher": "volcano", "cluster": '{"que": "x"}'}, "unknown cluster setting 'que'; did you mean"),
        ({"launcher": "volcano", "cluster": "ascend910"}, "unknown cluster preset 'ascend910'; did you mean"),
        ({"launcher": "volcano", "cluster": "{"}, "the field cluster: not JSON or YAML"),
        ({"launcher": "volcano", "cluster": "[cpu]"}, "the field cluster is '.cpu.': expected the name of a preset"),
        ({"launcher": "volcano", "cluster": "7"}, "the field cluster is '7': expected the name of a preset"),
        (
            {"launcher": "volcano", "cluster": "{nodes: 3}", **nested({"train": {"processes": 2}})},
            "but train.processes is 2",
        ),
        (
            ASCEND | nested({"train": {"processes": 16, "device_target": "CPU"}}),
            "train.device_target is CPU, but these nodes are for Ascend",
        ),
        (ASCEND | nested({"train": {"processes": 1}}), "train.processes is 1, but each pod runs 8 processes"),
        (
            {"data": "/home/me/data"},
            "the field data = /home/me/data: pods cannot read folders of this machine; copy it",
        ),
        ({"data": "ftp://host/x"}, "the field data: ftp://host/x: unknown kind of store 'ftp'"),
        ({"store": "store"}, "the field store = store: pods cannot read folders of this machine"),
        (nested({"pretrain": {"data": "/x"}}), "pretrain.data = /x: pods cannot read folders of this machine"),
        (nested({"retrain": {"latest": "minio://models/latest"}}), "models/latest: the name of a pointer ends in"),
    ],
)
def test_settings_that_make_no_sense_are_named(values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        check_form(DETECTOR_TRAINING, NEEDED | values, is_remote=True)
    assert "\n" not in str(refused.value)
    # What is wrong is said before the store is asked, which is nowhere here.
    with pytest.raises(InputError, match=message):
        configure(DETECTOR_TRAINING, NEEDED | values, is_remote=True)


@pytest.mark.parametrize(
    ("pipeline", "values", "message"),
    [
        (DETECTOR_RETRAINING, {"pointer": "latest.json"}, "the field pointer = latest.json: pods cannot read folders"),
        (DETECTOR_RETRAINING, {"max_regression": "inf"}, "retrain.max_regression = 'inf'"),
        (DETECTOR_RETRAINING, {"min_ap": "30"}, "evaluate.min_ap = '30'"),
        (DETECTOR_RETRAINING, {"start_from": "minio://m/x"}, "start_from = 'minio://m/x' .*one of empty, current, wei"),
        (DETECTOR_RETRAINING, {"start_from": "weights"}, "start_from = weights: train.weights is empty"),
        (DETECTOR_RETRAINING, {"start_from": "fresh", "weights": "minio://m/x"}, "fresh, and train.weights = minio"),
        (
            DETECTOR_RETRAINING,
            {"start_from": "backbone", **nested({"pretrain": {"enabled": False}})},
            "start_from = backbone, and pretrain.enabled = false: leave one",
        ),
        (MODEL_EVALUATION, {"runtime": "onx"}, "unknown runtime 'onx'; did you mean 'onnx'"),
        (MODEL_EVALUATION, {"baseline": "old"}, "the field baseline = old: pods cannot read folders"),
        (MODEL_EVALUATION, {"bundle": "new"}, "the field bundle = new: pods cannot read folders"),
        (MODEL_EVALUATION, nested({"evaluate": {"max_det": 0}}), "evaluate.max_det = 0"),
    ],
)
def test_forms_of_the_other_pipelines_are_checked_too(pipeline: str, values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_form(pipeline, SOME[pipeline] | values, is_remote=True)


@pytest.mark.parametrize("pipeline", SOME)
def test_fields_that_must_not_be_empty_are_named(pipeline: str) -> None:
    for name in CompiledPipeline.named(pipeline).required_fields:
        for empty in ("", "  "):
            with pytest.raises(InputError, match=f"^the field '{name}' is empty .{FIELDS[name][:20]}"):
                check_form(pipeline, SOME[pipeline] | {name: empty})


def test_an_unknown_pipeline_is_named() -> None:
    with pytest.raises(InputError, match="unknown pipeline 'detector-trainin'; did you mean 'detector-training'"):
        check_form("detector-trainin", {})


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        ("  \n", {}),
        ("cpu", {"preset": "cpu"}),
        ('{"preset": "cpu", "queue": "training"}', {"preset": "cpu", "queue": "training"}),
        ("preset: cpu\nqueue: training\n", {"preset": "cpu", "queue": "training"}),
        ("{nodes: 2}", {"nodes": 2}),
        ("{preset: null, queue: training}", {"queue": "training"}),
    ],
)
def test_the_cluster_is_a_preset_or_settings(text: str, settings: dict[str, Any]) -> None:
    assert parse_cluster(text) == settings
    form = (
        NEEDED | {"launcher": "volcano", "cluster": text} | nested({"train": {"processes": settings.get("nodes", 1)}})
    )
    assert check_form(DETECTOR_TRAINING, form).cluster == settings


def test_settings_that_go_together_are_taken() -> None:
    checked = check_form(DETECTOR_TRAINING, NEEDED | ASCEND | nested({"train": {"processes": 16}}), is_remote=True)
    assert checked.cluster == {"preset": "ascend910b"}
    config, origins = checked.resolved.config, checked.resolved.origins
    devices = {f"{name}.device_target" for name in ("pretrain", "train", "evaluate", "export")}
    assert {getattr(config, key.partition(".")[0]).device_target for key in devices} == {"Ascend"}
    assert {origins[key] for key in devices} == {"the cluster preset ascend910b"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (
            nested({"train": {"device_target": "Ascend"}}),
            "train.device_target is Ascend, but the step train runs in a pod without devices; set launcher to volcano, "
            "and cluster to a preset with this device, or leave the key out",
        ),
        (nested({"evaluate": {"device_target": "Ascend"}}), "the step evaluate runs in a pod without devices"),
        (
            {"launcher": "volcano", "cluster": "cpu"} | nested({"export": {"device_target": "Ascend"}}),
            "export.device_target is Ascend, but the step export_model runs in a pod without devices; "
            "set steps.export_model.job = true in the cluster settings",
        ),
        (
            {"launcher": "volcano", "cluster": "{preset: ascend910b, steps: {pretrain_backbone: {job: false}}}"}
            | nested({"train": {"processes": 8}, "pretrain": {"device_target": "Ascend"}}),
            "pretrain.device_target is Ascend, but the step pretrain_backbone runs in a pod without devices",
        ),
    ],
)
def test_a_device_is_refused_for_a_step_whose_pod_has_none(form: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as refused:
        check_form(DETECTOR_TRAINING, NEEDED | form, is_remote=True)
    assert words in str(refused.value)
    # On this machine a step without a job may use a device.
    check_form(DETECTOR_TRAINING, NEEDED | form, is_remote=False)


def test_a_step_without_a_job_keeps_processors_beside_steps_on_cards() -> None:
    cluster = "{preset: ascend910b, steps: {export_model: {job: false}}}"
    form = {"launcher": "volcano", "cluster": cluster} | nested({"train": {"processes": 8}})
    config = check_form(DETECTOR_TRAINING, NEEDED | form, is_remote=True).resolved.config
    assert (config.train.device_target, config.evaluate.device_target) == ("Ascend", "Ascend")
    assert config.export.device_target == "CPU"


# What lies in the store and at the data.


@pytest.mark.parametrize("pipeline", SOME)
def test_a_store_is_needed_from_the_form_or_the_environment(
    pipeline: str, data: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STORE, raising=False)
    form = {name: value for name, value in SOME[pipeline].items() if name != "store"}
    for empty in ({}, {"store": ""}, {"store": "  "}):
        with pytest.raises(InputError, match=f"^no store: fill in the field store, .*or set {STORE} .*ConfigMap"):
            configure(pipeline, form | empty)
    monkeypatch.setenv(STORE, store)
    run = configure(DETECTOR_TRAINING, {"data": str(data)})
    assert run.store == store
    assert {given.store for given in run.settings.values()} == {store}
    assert configure(DETECTOR_TRAINING, {"data": str(data), "store": f"{store}2"}).store == f"{store}2"


def test_the_store_of_pods_is_not_a_folder(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    form = {"data": "minio://data/x"}
    with pytest.raises(InputError, match=f"the field store = {store}: pods cannot read folders"):
        check_form(DETECTOR_TRAINING, form | {"store": store}, is_remote=True)
    # The environment of this machine is not that of pods.
    monkeypatch.setenv(STORE, store)
    assert check_form(DETECTOR_TRAINING, form, is_remote=True).store == ""
    monkeypatch.setenv(RUN_ID, "0f6d-17")
    with pytest.raises(InputError, match=f"the store of the environment .{STORE}. = {store}: pods cannot read folders"):
        check_form(DETECTOR_TRAINING, form, is_remote=True)


@pytest.mark.parametrize("place", ["/data/latest.json", "latest.json"])
def test_the_pointer_of_pods_is_not_a_file_of_this_machine(place: str) -> None:
    form = {
        "pointer": "minio://data/latest.json",
        "store": "minio://store",
        "settings": f"{{retrain: {{latest: {place}}}}}",
    }
    with pytest.raises(InputError, match=f"retrain.latest = {place}: pods cannot read folders"):
        check_form(DETECTOR_RETRAINING, form, is_remote=True)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"data": "absent"}, "absent"),
        (nested({"evaluate": {"split": "test"}}), "evaluate.split: .*shapes has no split 'test'; known: train, val"),
        (nested({"evaluate": {"split": "vall"}}), "has no split 'vall'; did you mean 'val'"),
        (nested({"train": {"val_split": "test"}}), "train.val_split: .*shapes has no split 'test'; known: train, val"),
        (nested({"pretrain": {"data": "absent"}}), "absent"),
    ],
)
def test_data_that_cannot_be_used_is_named(
    train: Callable[..., ConfiguredRun], form: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(**form)


def test_relative_places_are_made_absolute(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data.parent)
    run = configure(DETECTOR_TRAINING, {"data": data.name, "store": "store"})
    assert (run.data, run.store) == (str(data), str(data.parent / "store"))
    assert run.settings["validate_dataset"].data == str(data)


def test_a_version_that_is_there_already_is_noted(train: Callable[..., ConfiguredRun], tmp_path: Path) -> None:
    assert not any("version" in note for note in train(version="1.0.0").notes)
    make_bundle(tmp_path, "store/models/yolov5n-r7/1.0.0")
    notes = train(version="1.0.0").notes
    assert any("version 1.0.0 is at" in note and "this run fails at its end if" in note for note in notes)


# The name of a run.


def test_the_name_follows_the_settings_the_data_and_the_version(data: Path, tmp_path: Path) -> None:
    copy = generate_sample_dataset(tmp_path / "shapes", train=2, val=1, image_size=(64, 64))

    def name(where: Path = data, store: str = "a", **form: str) -> str:
        return configure(DETECTOR_TRAINING, {"data": str(where), "store": str(tmp_path / store), **form}).name

    first = name()
    assert first.startswith(f"{MODEL}-shapes-")
    # The preset's value, said; another store; the same data at another place; where training runs.
    assert first == name(max_epoch="300") == name(store="b") == name(copy)
    assert first == name(launcher="volcano", cluster='{"preset": "cpu", "memory": "8Gi"}')
    others = [
        name(max_epoch="3"),
        name(model="yolov5s-r7"),
        name(version="1.0.0"),
        name(settings="{train: {seed: 1}}"),
        name(settings="{train: {seed: 2}}"),
        name(max_drop="0"),
    ]
    document = copy / "annotations" / "val.json"
    document.write_bytes(document.read_bytes() + b" ")
    others.append(name(copy))
    assert len({first, *others}) == 1 + len(others)


def test_runs_of_two_pipelines_with_equal_settings_have_two_names(every_run: dict[str, ConfiguredRun]) -> None:
    # Each has an index of its results in the store, and would write over that of the other.
    assert len({run.name for run in every_run.values()}) == len({run.index for run in every_run.values()}) == 3


def test_images_to_pretrain_on_are_in_the_name_by_their_content(
    train: Callable[..., ConfiguredRun], tmp_path: Path
) -> None:
    images, moved = tmp_path / "classes", tmp_path / "moved"
    for label in ("cat", "dog"):
        (images / label).mkdir(parents=True)
        for number in range(2):
            (images / label / f"{number}.png").write_bytes(f"{label} {number}".encode())
    first, without = train(**nested({"pretrain": {"data": str(images)}})), train()
    given = first.settings["pretrain_backbone"]
    assert given.fingerprint == class_fingerprint(Place.of(images))
    assert given.config["pretrain"]["data"] == str(images)
    assert without.settings["pretrain_backbone"].fingerprint == ""
    images.rename(moved)
    assert train(**nested({"pretrain": {"data": str(moved)}})).name == first.name != without.name
    (moved / "dog" / "2.png").write_bytes(b"another")
    assert train(**nested({"pretrain": {"data": str(moved)}})).name != first.name


@pytest.fixture
def bucket(minio_bucket: str, data: Path) -> Iterator[str]:
    """The data in a bucket."""
    Place.of(f"minio://{minio_bucket}/data/shapes").store.put_tree(data, "")
    yield minio_bucket


@pytest.mark.parametrize(("preset", "processes"), [("ascend910b", 8), ("ascend910-a3", 16)])
def test_a_preset_of_an_ascend_cluster_alone_is_enough_for_every_model(
    bucket: str, preset: str, processes: int
) -> None:
    form = {"data": f"minio://{bucket}/data/shapes", "store": f"minio://{bucket}/store", "launcher": "volcano"}
    origin = f"the cluster preset {preset}"
    for model in preset_names():
        values = form | {"cluster": preset, "model": model}
        if model == "yolov3-quant":
            # Its training starts from trained float weights; this trains these.
            values |= {"settings": "{train: {fake_quantize: false}, quantize: {method: ptq}}"}
        config = check_form(DETECTOR_TRAINING, values, is_remote=True).resolved.config
        assert (config.model, config.train.processes) == (model, processes)
    # The plan of the last model, which reads the data.
    run = configure(DETECTOR_TRAINING, values, is_remote=True)
    (row,) = (row for row in run.view().changed if row.key == "train.processes")
    assert (row.value, row.origin) == (processes, origin)
    assert f"train.processes = {processes} ({origin})" in run.lines()
    assert run.settings["train"].config["train"]["processes"] == processes
    assert any(f"train in 1 pod with {processes} Ascend cards" in note for note in run.notes)


@pytest.mark.parametrize("field", ["field", "nested"])
def test_equal_settings_make_one_run_whoever_gives_them(bucket: str, tmp_path: Path, field: str) -> None:
    places = {"data": f"minio://{bucket}/data/shapes", "store": f"minio://{bucket}/store"}
    file = tmp_path / "my.yaml"
    file.write_text("model: yolov5s-r7\ntrain: {max_epoch: 5, lr: 0.02, seed: 3}\n")
    sets = ["quantize.max_drop=0", "pretrain.enabled=false"]
    run = training_form(places["data"], places["store"], None, "1.0.0", file, sets)
    sets, pairs = ["train.seed=3", "pretrain.enabled=False"], ["max_epoch=5", "lr=2e-2", "max_drop=0.0"]
    submit = training_form(places["data"], places["store"], "yolov5s-r7", "1.0.0", None, sets, pairs)
    parameters: dict[str, Any] = {"model": "yolov5s-r7", "version": "1.0.0", **places}
    settings: dict[str, Any] = {"train": {"seed": 3}, "pretrain": {"enabled": False}}
    values = {"train": {"max_epoch": 5, "lr": 0.02}, "quantize": {"max_drop": 0}}
    if field == "field":
        parameters |= {"max_epoch": 5, "lr": 0.02, "max_drop": 0}
    else:
        settings["train"] |= values["train"]
        settings["quantize"] = values["quantize"]
    schedule = {"name": "nightly", "cron": "@daily", "pipeline": DETECTOR_TRAINING}
    (tmp_path / "nightly.yaml").write_text(
        yaml.safe_dump(schedule | {"parameters": parameters | {"settings": settings}})
    )
    (read,) = read_schedules([tmp_path / "nightly.yaml"], check_form)
    scheduled = wanted_schedule(read, CompiledPipeline.named()).arguments
    # As the pages of Kubeflow send it, and a plain POST: every field, most of them empty.
    fields = CompiledPipeline.named().fields
    posted = {name: facts.get("defaultValue", "") for name, facts in fields.items()}
    posted |= {name: str(value) for name, value in parameters.items()}
    posted["settings"] = yaml.safe_dump(settings)

    runs = [configure(DETECTOR_TRAINING, form, is_remote=True) for form in (run, submit, scheduled, posted)]
    assert len({one.name for one in runs}) == 1
    assert runs[0].name.startswith("yolov5s-r7-shapes-")
    for other in runs[1:]:
        assert structs(other) == structs(runs[0])
        assert json.dumps(structs(other), sort_keys=True) == json.dumps(structs(runs[0]), sort_keys=True)
    seeds = [configure(DETECTOR_TRAINING, {**posted, "settings": f"train: {{seed: {seed}}}"}) for seed in (3, 4)]
    assert len({*(one.name for one in seeds), runs[0].name}) == 3


def test_anchors_name_a_run_however_they_are_written(train: Callable[..., ConfiguredRun]) -> None:
    flat, own = list(range(2, 20)), model_facts(MODEL).anchors
    plain = train()
    forms = [flat, [flat[:6], flat[6:12], flat[12:]], ", ".join(map(str, flat))]
    (name,) = {train(**nested({"train": {"anchors": form}})).name for form in forms}
    assert name != plain.name == train(**nested({"train": {"anchors": own}})).name
    with pytest.raises(InputError, match=r"train\.anchors = \[2, 3\]: these are 2 numbers"):
        train(**nested({"train": {"anchors": flat[:2]}}))


def test_a_store_that_was_emptied_gives_every_step_other_settings(data: Path, store: str) -> None:
    def run(mark_store: bool) -> ConfiguredRun:
        return configure(DETECTOR_TRAINING, {"data": str(data), "store": store}, mark_store=mark_store)

    looked = run(mark_store=False)
    assert not Path(store).exists() or not list(Path(store).iterdir())
    first = run(mark_store=True)
    assert structs(first) == structs(run(mark_store=True)) == structs(run(mark_store=False))
    shutil.rmtree(store)
    after = run(mark_store=True)
    assert looked.name == first.name == after.name
    for name, struct in structs(after).items():
        assert struct != structs(first)[name]
        assert {**struct, "store_id": ""} == {**structs(first)[name], "store_id": ""}


# What the steps are handed.


def configured_retraining(data: Path, store: str, tmp_path: Path, **form: str) -> ConfiguredRun:
    pointer = tmp_path / "pointer.json"
    pointer.write_text(json.dumps({"data": str(data)}))
    return configure(DETECTOR_RETRAINING, {"pointer": str(pointer), "store": store, **form})


def make_bundle(folder: Path, name: str, model: str = MODEL, **config: dict[str, Any]) -> str:
    """Publish a bundle whose weights are those that its name says, and return its URI."""
    files = {network: folder / network for network in (WEIGHTS, MINDIR, ONNX, ONNX_INT8)}
    for path in files.values():
        path.write_text(name)
    facts = model_facts(model)
    trained = resolve_layers(model, [("the test", flatten(config, "the test"))]).config.model_dump(mode="json")
    manifest = BundleManifest(
        model=model,
        classes=("a",),
        image_size=(64, 64),
        strides=facts.strides,
        anchors=facts.anchors,
        config=trained,
    )
    return publish_bundle(Place.of((folder / name).as_uri()), manifest, files).uri


@pytest.fixture
def evaluate(data: Path, store: str, tmp_path: Path) -> Callable[..., ConfiguredRun]:
    """Configure an evaluation of the bundle ``new``, with ``old`` as its baseline."""
    for name in ("new", "old"):
        make_bundle(tmp_path, name, train={"image_size": 320}, evaluate={"min_ap": 0.9})

    def configured(**form: str) -> ConfiguredRun:
        places = {"bundle": str(tmp_path / "new"), "baseline": str(tmp_path / "old")}
        return configure(MODEL_EVALUATION, {"data": str(data), "store": store, **places, **form})

    return configured


@pytest.fixture
def every_run(
    train: Callable[..., ConfiguredRun], evaluate: Callable[..., ConfiguredRun], data: Path, store: str, tmp_path: Path
) -> dict[str, ConfiguredRun]:
    return {
        DETECTOR_TRAINING: train(launcher="volcano", cluster="cpu", per_batch_size="4"),
        DETECTOR_RETRAINING: configured_retraining(data, store, tmp_path),
        MODEL_EVALUATION: evaluate(),
    }


def test_every_task_has_its_settings_with_the_sections_that_its_step_reads(every_run: dict[str, ConfiguredRun]) -> None:
    for pipeline, run in every_run.items():
        tasks = {name for name in CompiledPipeline.named(pipeline).tasks if name != "configure"}
        assert set(run.settings) == tasks, pipeline
        for task, given in run.settings.items():
            step = STEPS[task if task in STEPS else "evaluate"]
            expected: dict[str, set[str]] = {}
            for key in step.reads:
                section, _, name = key.partition(".")
                owner = getattr(Config(), section)
                expected.setdefault(section, set()).update([name] if name else type(owner).model_fields)
            assert {section: set(values) for section, values in given.config.items()} == expected, (pipeline, task)
            # Each is handed its values, and the step finds the same configuration as the run has.
            if not given.model:
                assert not given.config
                continue
            read, whole = given.configuration(), run.config
            for section, names in expected.items():
                for name in names - {"min_ap", "on_miss"}:
                    assert getattr(getattr(read, section), name) == getattr(getattr(whole, section), name)


def test_a_training_leaves_out_int8_that_misses_and_a_retraining_fails(every_run: dict[str, ConfiguredRun]) -> None:
    steps = {name: run.settings["quantize"] for name, run in every_run.items() if "quantize" in run.settings}
    on_miss = {name: settings.configuration().quantize.on_miss for name, settings in steps.items()}
    assert on_miss == {DETECTOR_TRAINING: "leave_out", DETECTOR_RETRAINING: ""}
    form = {"settings": "{quantize: {on_miss: leave_out}}"}
    check_settings(DETECTOR_TRAINING, form)
    with pytest.raises(InputError, match=r"quantize\.on_miss = leave_out: .*retraining.*set it to fail"):
        check_settings(DETECTOR_RETRAINING, form)


def test_no_struct_has_a_null_or_an_empty_value(every_run: dict[str, ConfiguredRun]) -> None:
    def nulls(value: Any) -> bool:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return value is None or any(map(nulls, inner))

    for run in every_run.values():
        for name, struct in (("run", run.struct()), *structs(run).items()):
            assert not nulls(struct), name
            # Values of the configuration may be empty texts: their keys are always there.
            assert [key for key, value in struct.items() if value in ("", {}, [])] == [], name
            assert all(struct.get("config", {"a": "section"}).values()), name


def test_a_struct_that_went_through_a_pipeline_is_the_same_settings(every_run: dict[str, ConfiguredRun]) -> None:
    def as_protobuf(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: as_protobuf(each) for key, each in value.items()}
        if isinstance(value, list):
            return [as_protobuf(each) for each in value]
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    for run in every_run.values():
        for name, given in run.settings.items():
            parsed = StepSettings.parse(as_protobuf(given.struct()), name)
            assert parsed == given
            if given.model:
                assert parsed.configuration() == given.configuration()


def test_code_data_and_places_are_handed_to_the_steps_that_need_them(
    every_run: dict[str, ConfiguredRun], data: Path, store: str
) -> None:
    run = every_run[DETECTOR_TRAINING]
    weights = {name for name, given in run.settings.items() if given.code == weights_source()}
    assert weights == {"pretrain_backbone", "train"}
    assert {given.code for name, given in run.settings.items() if name not in weights} == {results_source()}
    validated = run.settings["validate_dataset"]
    assert (validated.data, validated.fingerprint) == (str(data), source_facts(data).fingerprint)
    for step in ("pretrain_backbone", "train"):
        assert (run.settings[step].launcher, run.settings[step].cluster) == ("volcano", {"preset": "cpu"})
    assert run.index == run.settings["publish"].index == run_output(Place.of(store), run.name, "result.json").uri
    assert every_run[DETECTOR_RETRAINING].settings["promote"].index == every_run[DETECTOR_RETRAINING].index
    # Only steps that are about the run as a whole are told its name: others may come from the cache.
    named = {name for name, given in run.settings.items() if run.name in json.dumps(given.struct())}
    assert named == {"publish"}


CONCERNS = {
    "quantize.max_drop=0.5": {"quantize"},
    "quantize.calibration_images=8": {"quantize"},
    "export.parity_images=2": {"export_model"},
    # Validations while training use the thresholds, and decide which weights are published.
    "evaluate.max_det=7": {"train", "evaluate", "export_model", "quantize"},
    "evaluate.per_batch_size=4": {"evaluate", "export_model", "quantize"},
    "evaluate.min_ap=0.5": {"evaluate", "export_model", "quantize"},
    "pretrain.lr=0.5": {"pretrain_backbone"},
    "augment.mosaic=0": {"train"},
    "augment.hsv_h=0.1": {"pretrain_backbone", "train"},
    "train.lr=0.5": {"train"},
    "train.max_epoch=3": {"train"},
    "train.seed=1": {"pretrain_backbone", "train", "quantize"},
    "data.workers=0": {"train"},
    "predict.max_det=7": set(),
    "retrain.force=true": set(),
}


@pytest.mark.parametrize("pair", CONCERNS)
def test_a_setting_changes_only_the_structs_of_the_steps_that_it_concerns(data: Path, store: str, pair: str) -> None:
    def run(*sets: str) -> ConfiguredRun:
        form = training_form(str(data), store, None, "1.0.0", None, list(sets))
        return configure(DETECTOR_TRAINING, form)

    before, after = structs(run()), structs(run(pair))
    assert before["publish"].pop("index") != after["publish"].pop("index")
    assert {name for name in before if before[name] != after[name]} == CONCERNS[pair]


def test_the_launcher_concerns_the_steps_that_may_have_a_job_alone(train: Callable[..., ConfiguredRun]) -> None:
    here, there = structs(train()), structs(train(launcher="volcano"))
    with_jobs = {name for name, step in STEPS.items() if step.has_job}
    assert {name for name in here if here[name] != there[name]} == with_jobs
    assert with_jobs == {"pretrain_backbone", "train", "evaluate", "export_model", "quantize"}
    as_text = train(launcher="volcano", cluster="cpu")
    as_json = train(launcher="volcano", cluster='{"preset": "cpu"}')
    as_yaml = train(launcher="volcano", cluster="preset: cpu")
    assert structs(as_text) == structs(as_json) == structs(as_yaml)


def test_images_that_the_pods_of_a_pretraining_cannot_reach_are_refused(train: Callable[..., ConfiguredRun]) -> None:
    with pytest.raises(InputError, match="pretrain.data .*/images: pods cannot read folders on this machine"):
        train(
            launcher="volcano",
            cluster="{steps: {pretrain_backbone: {job: true}}}",
            settings="pretrain: {data: images}",
        )


def test_a_small_data_set_with_few_classes_is_named_in_the_notes(train: Callable[..., ConfiguredRun]) -> None:
    def notes(settings: str = "") -> list[str]:
        return [line for line in train(settings=settings).notes if "train.cls_gain" in line]

    (note,) = notes()
    assert note.startswith("2 training images of 3 classes are a small set, and the class loss is multiplied by 3/80")
    assert notes("train: {cls_gain: 4}") == []


def test_the_plan_says_which_steps_take_more_memory_than_this_machine_has(
    train: Callable[..., ConfiguredRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(RUN_ID, raising=False)
    monkeypatch.setattr(launcher, "usable_memory", lambda: 10**9)
    lines = [line for line in train().notes if "of memory" in line]
    start = "this machine, or its container, allows 1.0 GB of memory, less than the "
    assert [line.startswith(start) for line in lines] == [True, True]
    assert "that train takes: lower train.per_batch_size (8), " in lines[0]
    assert "that pretrain_backbone takes: lower pretrain.per_batch_size (32) or pretrain.image_size (96), " in lines[1]
    assert len([line for line in train(settings="pretrain: {enabled: false}").notes if "of memory" in line]) == 1
    for enough in (10**12, None):
        monkeypatch.setattr(launcher, "usable_memory", lambda found=enough: found)
        assert not any("of memory" in line for line in train().notes)

    # A training in pods has the memory of the pods, whatever this machine has.
    monkeypatch.setattr(launcher, "usable_memory", lambda: 10**9)
    pods = {"preset": "cpu", "memory": "64Gi"}
    assert not any("of memory" in line for line in train(launcher="volcano", cluster=json.dumps(pods)).notes)


@pytest.mark.parametrize(
    ("cluster", "step"),
    [
        ({"memory": "2Gi"}, "train"),
        ({"memory": "8Gi", "steps": {"train": {"memory": "2Gi"}}}, "train"),
        ({"memory": "8Gi", "steps": {"pretrain_backbone": {"job": True, "memory": "1Gi"}}}, "pretrain_backbone"),
        # The one process of a pretraining has its share of a pod.
        (
            {
                "memory": "8Gi",
                "devices_per_node": 8,
                "steps": {"pretrain_backbone": {"job": True}, "train": {"job": False}},
            },
            "pretrain_backbone",
        ),
    ],
)
def test_a_step_that_takes_more_memory_than_the_pods_of_its_job_is_refused(
    train: Callable[..., ConfiguredRun], cluster: dict[str, Any], step: str
) -> None:
    processes = {"train": {"processes": cluster.get("devices_per_node", 1), "per_batch_size": 1, "image_size": 128}}
    settings = {"pretrain": {"enabled": step == "pretrain_backbone"}}
    settings |= processes if step == "pretrain_backbone" else {}
    form = {"launcher": "volcano", "settings": json.dumps(settings)}
    with pytest.raises(
        InputError, match=rf"^{step} takes about .* its pod may use .*: raise the cluster setting memory"
    ):
        train(cluster=json.dumps({"preset": "cpu", **cluster}), **form)
    large = {"preset": "cpu", **cluster, "memory": "64Gi", "steps": {step: {"job": True}}}
    assert train(cluster=json.dumps(large), **form).name


def test_a_step_that_takes_more_memory_than_its_own_pod_is_refused_with_the_option_that_allows_it(
    data: Path, store: str
) -> None:
    def run(limits: Mapping[str, str], **form: str) -> ConfiguredRun:
        return configure(DETECTOR_TRAINING, {"data": str(data), "store": store, **form}, memory_limits=limits)

    words = (
        r"^train takes about 4\.3 GB of memory, and its pod may use 4Gi: allow more with --resources train.memory=5Gi "
    )
    with pytest.raises(InputError, match=words):
        run({"train": "4Gi"})
    with pytest.raises(
        InputError, match=r"^pretrain_backbone takes about .* --resources pretrain_backbone.memory=2Gi "
    ):
        run({"train": "5Gi", "pretrain_backbone": "1Gi"})
    # What the messages name is enough.
    unlimited = run({})
    assert run({"train": "5Gi", "pretrain_backbone": "2Gi", "evaluate": "64Mi"}).name == unlimited.name
    # A step that does not run takes nothing, and a step with a job works elsewhere.
    assert run({"train": "5Gi", "pretrain_backbone": "1Gi"}, settings="pretrain: {enabled: false}").name
    in_job = {"launcher": "volcano", "cluster": '{"preset": "cpu", "memory": "8Gi"}'}
    assert run({"train": "64Mi"}, **in_job).name == unlimited.name


def test_the_first_step_knows_the_limits_of_its_pipeline(
    data: Path, store: str, minio_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMORY_LIMITS, '{"train": "4Gi"}')
    # On this machine there are no pods.
    assert facade.configure(DETECTOR_TRAINING, {"data": str(data), "store": store})[0].name
    place = Place.of(f"minio://{minio_bucket}/data/shapes")
    place.store.put_tree(data, "")
    form = {"data": place.uri, "store": f"minio://{minio_bucket}/store"}
    with pytest.raises(InputError, match="^train takes about 4.3 GB of memory, and its pod may use 4Gi: "):
        facade.configure(DETECTOR_TRAINING, form, run_id="3f0c9a1b")
    monkeypatch.setenv(MEMORY_LIMITS, '{"train": "5Gi"}')
    assert facade.configure(DETECTOR_TRAINING, form, run_id="3f0c9a1b")[0].name


def test_the_plan_says_what_differs_and_what_it_will_take(train: Callable[..., ConfiguredRun]) -> None:
    run = train(max_epoch="7", settings="train: {seed: 3, lr: 0.01}")
    view = run.view()
    # A value that is the preset's own does not differ, whoever says it.
    assert {row.key: (row.value, row.preset, row.origin) for row in view.changed} == {
        "train.max_epoch": (7, 300, "the field max_epoch"),
        "train.seed": (3, 0, "the field settings"),
    }
    assert view.images == {"train": 2, "val": 1}
    assert run.estimate is not None and view.estimate[0].startswith("about ")
    assert run.lines()[0] == f"run {run.name}"
    assert "train.max_epoch = 7 (the field max_epoch)" in run.lines()
    assert "7 epochs at 640 px" in run.lead


# Retraining: the pointer to the data, and the current model.


class Retraining:
    """A pointer to data sets of two images, and a store with a pointer to the current model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = (folder / "store").as_uri()
        self.latest = f"{self.store}/models/{MODEL}/latest.json"
        self.pointer = folder / "data" / "latest.json"

    def point_to(self, name: str, seed: int) -> None:
        generate_sample_dataset(self.folder / "data" / name, seed=seed, train=2, val=1, image_size=(64, 64))
        self.pointer.write_text(json.dumps({"data": name}))

    def look(self, **form: str) -> ConfiguredRun:
        return configure(DETECTOR_RETRAINING, {"pointer": str(self.pointer), "store": self.store, **form})

    def make_current(self, run: ConfiguredRun, name: str = "one") -> str:
        """Publish a bundle, make it current as promote does, and return its reference."""
        bundle = make_bundle(self.folder, f"store/models/{MODEL}/{name}")
        place = run.settings["promote"]
        pointer = ModelPointer(bundle=bundle, version=name, data=place.data, fingerprint=place.fingerprint)
        latest = Place.of(place.latest)
        write_model_pointer(latest, pointer, read_model_version(latest).etag)
        return read_bundle(Place.of(bundle)).reference


@pytest.fixture
def retraining(tmp_path: Path) -> Retraining:
    (tmp_path / "data").mkdir()
    made = Retraining(tmp_path)
    made.point_to("monday", seed=1)
    return made


def test_without_a_current_model_there_is_something_to_train(retraining: Retraining) -> None:
    run = retraining.look()
    monday = retraining.folder / "data" / "monday"
    assert run.has_work and run.data == str(monday)
    assert run.name.startswith(f"{MODEL}-monday-")
    assert any(retraining.latest in note for note in run.notes)
    promote = run.settings["promote"]
    assert (promote.data, promote.fingerprint) == (str(monday), source_facts(monday).fingerprint)
    assert (promote.latest, promote.current) == (retraining.latest, "")
    assert run.settings["evaluate_current"].current == ""
    assert run.facts["pointer"] == str(retraining.pointer) and run.struct()["latest"] == retraining.latest


def test_unchanged_data_leaves_nothing_to_do(retraining: Retraining) -> None:
    first = retraining.look()
    reference = retraining.make_current(first)
    run = retraining.look()
    assert not run.has_work and run.facts["current"] == reference
    assert any(note.startswith("unchanged: ") and "retrain.force=true" in note for note in run.notes)
    # Nothing is trained, so that the limits do not matter.
    form = {"pointer": str(retraining.pointer), "store": retraining.store}
    assert not configure(DETECTOR_RETRAINING, form, memory_limits={"train": "64Mi"}).has_work
    with pytest.raises(InputError, match="^train takes about "):
        forced = form | {"settings": "retrain: {force: true}"}
        configure(DETECTOR_RETRAINING, forced, memory_limits={"train": "64Mi"})
    assert run.view().estimate == ()
    # The same content in another place is the same data.
    (retraining.folder / "data" / "monday").rename(retraining.folder / "data" / "moved")
    retraining.pointer.write_text('{"data": "moved", "note": "a bigger disk"}')
    assert not retraining.look().has_work
    forced = retraining.look(settings="retrain: {force: true}")
    assert forced.has_work and forced.data.endswith("/data/moved")
    assert forced.settings["evaluate_current"].current == forced.settings["promote"].current == reference


def test_other_data_is_compared_with_the_current_model(retraining: Retraining) -> None:
    first = retraining.look()
    reference = retraining.make_current(first)
    retraining.point_to("tuesday", seed=2)
    run = retraining.look()
    assert run.has_work and run.data.endswith("/tuesday") and run.name != first.name
    assert run.settings["evaluate_current"].current == run.settings["promote"].current == reference
    assert any(note.startswith("to train: the current model is ") for note in run.notes)
    # A current model that was published anew under its URI is another one for Kubeflow's cache.
    before = run.settings["evaluate_current"]
    weights = retraining.folder / "weights.safetensors"
    weights.write_text("other weights")
    manifest = BundleManifest(
        model=MODEL, classes=("b",), image_size=(64, 64), strides=(8,), anchors=model_facts(MODEL).anchors
    )
    publish_bundle(Place.of(reference.partition("@")[0]), manifest, {weights.name: weights})
    assert retraining.look().settings["evaluate_current"] != before


def test_another_pointer_to_the_current_model_may_be_named(retraining: Retraining) -> None:
    retraining.make_current(retraining.look())
    mine = str(retraining.folder / "mine.json")
    run = retraining.look(**nested({"retrain": {"latest": mine}}))
    assert (
        run.has_work and run.settings["promote"].latest == Place.of(mine).uri and run.settings["promote"].current == ""
    )


def test_the_loss_that_is_allowed_is_in_the_settings_of_promote(retraining: Retraining) -> None:
    run = retraining.look(max_regression="0.5")
    assert run.config.retrain.max_regression == 0.5
    assert run.settings["promote"].config["retrain"]["max_regression"] == 0.5


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, 'there is no such pointer to a data set; write {"data": "minio://kubeyolo/data/bccd'),
        ("data: x", "this pointer is not JSON"),
        ("[]", "this pointer is not a JSON object"),
        ('{"dat": "x"}', "this pointer has no 'data'; did you mean 'dat'"),
        ("{}", "this pointer has no 'data'; expected"),
        ('{"data": 7}', "data = 7: "),
        ('{"data": "absent"}', "points at a data set that cannot be used: "),
        ('{"data": ""}', "data = ''"),
        ('{"data": "../else"}', "must not be empty, '.' or '..'"),
        ('{"data": "ftp://x/y"}', "unknown kind of store 'ftp'"),
    ],
)
def test_a_bad_pointer_to_data_is_named(retraining: Retraining, document: str | None, words: str) -> None:
    retraining.pointer.unlink()
    if document is not None:
        retraining.pointer.write_text(document)
    with pytest.raises(InputError) as refused:
        retraining.look()
    assert words in str(refused.value) and retraining.pointer.name in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_bad_pointer_to_the_current_model_is_named(retraining: Retraining) -> None:
    absent = (retraining.folder / "absent").as_uri()
    write_model_pointer(Place.of(retraining.latest), ModelPointer(bundle=absent))
    with pytest.raises(InputError, match=rf"latest.json points at {absent}, which is not a bundle; correct the"):
        retraining.look()
    other = retraining.folder / "in-use.json"
    other.write_text('{"bundel": "x"}')
    with pytest.raises(InputError, match="in-use.json: this pointer has no 'bundle'; did you mean 'bundel'"):
        retraining.look(**nested({"retrain": {"latest": str(other)}}))
    with pytest.raises(InputError, match="the name of a pointer ends in .json"):
        retraining.look(**nested({"retrain": {"latest": str(retraining.folder / "models")}}))


def test_the_data_that_a_pointer_of_pods_names_is_no_folder(bucket: str, data: Path) -> None:
    pointer = f"minio://{bucket}/data/latest.json"
    form = {"pointer": pointer, "store": f"minio://{bucket}/store"}
    Place.of(pointer).write(json.dumps({"data": str(data)}).encode())
    with pytest.raises(InputError, match=f"the data that {pointer} names = {data}: pods cannot read folders"):
        configure(DETECTOR_RETRAINING, form, is_remote=True)
    Place.of(pointer).write(b'{"data": "shapes"}')
    run = configure(DETECTOR_RETRAINING, form, is_remote=True)
    assert run.data == f"minio://{bucket}/data/shapes" and run.has_work
    for pipeline, place in ((DETECTOR_TRAINING, {"data": run.data}), (DETECTOR_RETRAINING, {"pointer": pointer})):
        for split in ("train", "test"):
            given = form | place | nested({"evaluate": {"split": split}})
            if split == "train":
                assert configure(pipeline, given, is_remote=True).config.evaluate.split == "train"
                continue
            with pytest.raises(InputError, match=f"evaluate.split: {run.data} has no split 'test'; known: train, val"):
                configure(pipeline, given, is_remote=True)


# Evaluation: of a bundle, and of a baseline, by URI or by pointer.


def test_bundles_are_pinned_and_evaluated_without_their_gate(
    evaluate: Callable[..., ConfiguredRun], tmp_path: Path
) -> None:
    run = evaluate(settings="evaluate: {max_det: 7}", runtime="onnx")
    assert run.bundle == read_bundle(Place.of(tmp_path / "new"))
    assert run.baseline == read_bundle(Place.of(tmp_path / "old"))
    assert run.name.startswith("evaluation-new-shapes-")
    new, old = run.settings["evaluate"], run.settings["evaluate_baseline"]
    assert new.config == old.config
    assert (new.config["evaluate"]["max_det"], new.config["evaluate"]["min_ap"], new.runtime) == (7, 0.0, "onnx")
    assert (new.index, old.index) == tuple(
        run_output(Place.of(run.store), run.name, f"{task}.json").uri for task in ("evaluate", "evaluate_baseline")
    )
    # The training's own settings are those of the bundle.
    assert run.config.train.image_size == 320
    assert evaluate(min_ap="0.9").settings["evaluate"].config["evaluate"]["min_ap"] == 0.0


def test_a_pointer_stands_for_the_bundle_that_it_names(evaluate: Callable[..., ConfiguredRun], tmp_path: Path) -> None:
    run = evaluate()
    latest = str(tmp_path / "latest.json")
    write_model_pointer(Place.of(latest), ModelPointer(bundle=(tmp_path / "old").as_uri()))
    by_pointer = evaluate(baseline=latest)
    assert (by_pointer.name, structs(by_pointer)) == (run.name, structs(run))
    by_reference = evaluate(bundle=run.bundle.reference, baseline=run.baseline.reference)
    assert (by_reference.name, structs(by_reference)) == (run.name, structs(run))
    with pytest.raises(InputError, match="absent.json: there is no such pointer to a model"):
        evaluate(bundle=str(tmp_path / "absent.json"))
    with pytest.raises(InputError, match="absent.*bundle.json"):
        evaluate(bundle=str(tmp_path / "absent"))


def test_the_bundle_that_a_pointer_of_pods_names_is_no_folder(bucket: str, tmp_path: Path) -> None:
    latest = f"minio://{bucket}/models/latest.json"
    bundle = make_bundle(tmp_path, "new")
    write_model_pointer(Place.of(latest), ModelPointer(bundle=bundle))
    form = {"data": f"minio://{bucket}/data/shapes", "store": f"minio://{bucket}/store", "bundle": latest}
    with pytest.raises(InputError, match=f"the bundle that {latest} names = {bundle}: pods cannot read folders"):
        configure(MODEL_EVALUATION, form, is_remote=True)


def test_a_bundle_whose_content_has_changed_is_refused(evaluate: Callable[..., ConfiguredRun]) -> None:
    run = evaluate()
    with pytest.raises(InputError, match="its content has changed"):
        evaluate(bundle=run.bundle.place.pinned("0" * 64).reference)


def test_the_name_of_an_evaluation_follows_all_that_its_numbers_depend_on(
    evaluate: Callable[..., ConfiguredRun], tmp_path: Path
) -> None:
    first = evaluate()
    assert first.name == evaluate().name == evaluate(runtime="mindspore").name
    others = [
        evaluate(runtime="onnx"),
        evaluate(baseline=""),
        evaluate(settings="evaluate: {max_det: 7}"),
        evaluate(settings="evaluate: {device_target: Ascend}"),
        evaluate(bundle=str(tmp_path / "old")),
    ]
    assert len({first.name, *(other.name for other in others)}) == 1 + len(others)
    alone = evaluate(baseline="")
    assert alone.settings["evaluate_baseline"].config == {} and alone.settings["evaluate_baseline"].index == ""
    assert alone.baseline is None
    assert "baseline" not in alone.struct()
    # The limits of a gate are compared with the numbers, which do not depend on them.
    assert evaluate(settings="evaluate: {min_ap: 0.5}").name == first.name


@pytest.mark.parametrize(
    ("cluster", "processes", "line"),
    [
        ("cpu", 2, "jobs: train in 2 pods with 1 worker each; all other steps run without a job"),
        (
            "ascend910b",
            16,
            "jobs: pretrain_backbone in 1 pod with 1 Ascend card, train in 2 pods with 8 Ascend cards each, "
            "evaluate in 1 pod with 1 Ascend card, export_model in 1 pod with 1 Ascend card; "
            "all other steps run without a job",
        ),
        (
            "{steps: {train: {job: false}, evaluate: {job: true, nodes: 3, devices_per_node: 2}}}",
            1,
            "jobs: evaluate in 3 pods with 2 workers each; all other steps run without a job",
        ),
        ("{steps: {train: {job: false}}}", 1, "no step has a job"),
    ],
)
def test_the_plan_names_the_pods_of_each_step_with_a_job(
    train: Callable[..., ConfiguredRun], cluster: str, processes: int, line: str
) -> None:
    run = train(launcher="volcano", cluster=cluster, **nested({"train": {"processes": processes}}))
    assert line in run.lines() and line in run.view().notes
    assert not [each for each in train().lines() if each.startswith("jobs: ")]


def test_the_plan_names_all_pods_of_a_pretraining_with_several_processes(train: Callable[..., ConfiguredRun]) -> None:
    cluster = "{steps: {pretrain_backbone: {job: true, devices_per_node: 2}}}"
    run = train(launcher="volcano", cluster=cluster, **nested({"pretrain": {"processes": 4}}))
    assert "jobs: pretrain_backbone in 2 pods with 2 workers each, train in 1 pod with 1 worker" in " ".join(
        run.lines()
    )


def test_a_step_that_is_turned_off_has_no_job(train: Callable[..., ConfiguredRun]) -> None:
    settings = {"train": {"processes": 8}, "pretrain": {"enabled": False}}
    (line,) = (each for each in train(**ASCEND, **nested(settings)).lines() if each.startswith("jobs: "))
    assert line.startswith("jobs: train in 1 pod with 8 Ascend cards, evaluate in ")


def test_an_evaluation_has_a_job_too(evaluate: Callable[..., ConfiguredRun]) -> None:
    run = evaluate(**ASCEND)
    assert "jobs: evaluate in 1 pod with 1 Ascend card; all other steps run without a job" in run.lines()
    for task in ("evaluate", "evaluate_baseline"):
        given = run.settings[task]
        assert (given.launcher, given.cluster) == ("volcano", {"preset": "ascend910b"})
        assert given.configuration().evaluate.device_target == "Ascend"
    assert run.name != evaluate().name
    with pytest.raises(InputError, match="evaluate.device_target is CPU, but these nodes are for Ascend"):
        evaluate(**ASCEND, **nested({"evaluate": {"device_target": "CPU"}}))
    with pytest.raises(InputError, match="cluster is set, but launcher is local"):
        evaluate(cluster="cpu")


# The step as Kubeflow calls it.


class Plan:
    """What is needed of kfp's Markdown."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "plan" / "plan.md")


def outputs(pipeline: str, values: tuple[Any, ...]) -> dict[str, Any]:
    """Return the outputs of the component of a pipeline by name."""
    from components.configure import component as made_by_kfp

    made = {
        DETECTOR_TRAINING: made_by_kfp.configure_training,
        DETECTOR_RETRAINING: made_by_kfp.configure_retraining,
        MODEL_EVALUATION: made_by_kfp.configure_evaluation,
    }[pipeline]
    names = made.python_func.__annotations__["return"]._fields
    return dict(zip(names, values, strict=True))


def test_the_step_hands_each_task_its_settings(
    every_run: dict[str, ConfiguredRun], data: Path, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(component.RUN_ID, raising=False)
    places = {"bundle": str(tmp_path / "new"), "baseline": str(tmp_path / "old")}
    forms = {
        DETECTOR_TRAINING: {"data": str(data), "launcher": "volcano", "cluster": "cpu", "per_batch_size": "4"},
        DETECTOR_RETRAINING: {"pointer": str(tmp_path / "pointer.json")},
        MODEL_EVALUATION: {"data": str(data), **places},
    }
    calls: dict[str, Any] = {
        DETECTOR_TRAINING: component.configure_training,
        DETECTOR_RETRAINING: component.configure_retraining,
        MODEL_EVALUATION: component.configure_evaluation,
    }
    for pipeline, run in every_run.items():
        plan = Plan(tmp_path / pipeline)
        made = outputs(pipeline, calls[pipeline](plan=plan, store=store, **forms[pipeline]))
        mark = store_id(Place.of(store))
        assert mark and {name: made[name] for name in run.settings} == {
            name: {**struct, "store_id": mark} for name, struct in structs(run).items()
        }
        assert made["run"] == run.struct() and made["run"]["data"] == run.data
        assert Path(plan.path).read_text().splitlines()[0] == f"# {escape(run.name)}"
        record = read_record(Place.of(made["record"]))
        assert record.metrics["name"] == run.name and record.report
        assert not (tmp_path / "store" / "runs" / "ids").exists()
    assert (made["bundle"], made["baseline"]) == (
        every_run[MODEL_EVALUATION].bundle.reference,
        every_run[MODEL_EVALUATION].baseline.reference,
    )
    alone = outputs(
        MODEL_EVALUATION,
        component.configure_evaluation(
            plan=Plan(tmp_path), store=store, data=str(data), bundle=places["bundle"], baseline=""
        ),
    )
    # Kubeflow wants a value for each output.
    assert alone["baseline"] == "" and StepSettings.parse(alone["evaluate_baseline"], "evaluate").config == {}


def test_a_retraining_without_work_hands_on_no_data(retraining: Retraining) -> None:
    def step(**form: str) -> dict[str, Any]:
        places = {"pointer": str(retraining.pointer), "store": retraining.store}
        plan = Plan(retraining.folder)
        return outputs(DETECTOR_RETRAINING, component.configure_retraining(plan=plan, **places, **form))

    assert step()["data"] == str(retraining.folder / "data" / "monday")
    retraining.make_current(retraining.look())
    made = step()
    assert made["data"] == ""
    assert made["run"]["data"] == str(retraining.folder / "data" / "monday")
    assert step(settings="retrain: {force: true}")["data"] == made["run"]["data"]


def test_a_run_of_pods_is_noted_by_its_id(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"minio://{bucket}/store"
    monkeypatch.setenv(component.RUN_ID, "0f6d-17")
    monkeypatch.setenv(STORE, store)
    Place.of(f"minio://{bucket}/data/latest.json").write(b'{"data": "shapes"}')
    pointer = f"minio://{bucket}/data/latest.json"
    values = component.configure_retraining(plan=Plan(tmp_path), pointer=pointer, store="", max_epoch="3")
    run = configure(DETECTOR_RETRAINING, {"pointer": pointer, "store": store, "max_epoch": "3"}, is_remote=True)
    assert outputs(DETECTOR_RETRAINING, values)["run"]["name"] == run.name
    assert read_note(Place.of(store), "0f6d-17") == {
        "name": run.name,
        "pipeline": DETECTOR_RETRAINING,
        "index": run.index,
        "latest": f"{store}/models/{MODEL}/latest.json",
    }
    assert f"run {run.name}" in capsys.readouterr().out
    # What pods do not reach is refused there as it is here: with one line.
    with pytest.raises(SystemExit) as ended:
        component.configure_training(plan=Plan(tmp_path), data=str(tmp_path), store=store)
    assert ended.value.code == InputError.exit_code
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: the field data = {tmp_path}: pods cannot read folders")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"max_epoch": "10.0"}, {"settings": "train: {max_epoch: 10}"}),
        ({"max_epoch": "10.0"}, {"settings": '{"train": {"max_epoch": "10"}}'}),
        ({"lr": "1e-3"}, {"settings": "train: {lr: 0.0010}"}),
        ({"max_drop": "-0.0"}, {"max_drop": "0"}),
        ({"settings": "export: {formats: [onnx, mindir]}"}, {"settings": "export: {formats: [mindir, onnx, onnx]}"}),
        ({"settings": "train: {nesterov: True}"}, {"settings": "train: {nesterov: true}"}),
    ],
)
def test_one_setting_makes_one_name_whatever_way_it_is_written(
    train: Callable[..., ConfiguredRun], one: dict[str, str], other: dict[str, str]
) -> None:
    runs = [train(**one), train(**other)]
    assert runs[0].name == runs[1].name
    assert json.dumps(structs(runs[0]), sort_keys=True) == json.dumps(structs(runs[1]), sort_keys=True)


def test_steps_take_whole_numbers_that_have_become_doubles(train: Callable[..., ConfiguredRun]) -> None:
    given = train(settings="train: {seed: 4294967295}").settings["train"]

    def doubles(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: doubles(each) for key, each in value.items()}
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    assert StepSettings.parse(doubles(given.struct()), "train").configuration() == given.configuration()


def test_a_bundle_of_another_version_is_usable(capsys: pytest.CaptureFixture[str]) -> None:
    manifest = BundleManifest(
        model=MODEL,
        classes=("cat",),
        image_size=(64, 64),
        strides=(8, 16, 32),
        anchors=(((1.0, 2.0),),) * 3,
        config={"train": {"seed": 7, "gone_key": 1, "optimizer": "lion"}, "augment": {"mosaic": 0.25}, "new": {}},
    )
    config = bundle_config(manifest, {}).config
    assert (config.train.seed, config.train.optimizer, config.augment.mosaic) == (7, "sgd", 0.25)
    assert capsys.readouterr().err == "left out of the bundle's configuration: train.gone_key, train.optimizer\n"
    with pytest.raises(InputError, match="unknown configuration key 'train.gone_key'"):
        bundle_config(manifest, {"settings": "train: {gone_key: 1}"})


@pytest.mark.parametrize("pipeline", SOME)
def test_settings_are_checked_without_places(pipeline: str) -> None:
    check_settings(pipeline, {})
    with pytest.raises(InputError, match=r"train\.seed"):
        check_settings(pipeline, {"settings": "train: {seed: -1}"})

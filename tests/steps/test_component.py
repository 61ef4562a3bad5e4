"""What components call: settings and references in; references, artifacts and one line for each failure out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from kubeyolo.bundle import ONNX, open_bundle, read_bundle
from kubeyolo.catalogue import STEPS
from kubeyolo.config.load import load_config
from kubeyolo.config.schema import Config
from kubeyolo.data.dataset import Dataset, open_dataset
from kubeyolo.errors import InputError, WorkError
from kubeyolo.events import parse_event
from kubeyolo.index import read_index, read_note, run_output
from kubeyolo.pointers import read_model_pointer
from kubeyolo.source import results_source
from kubeyolo.steps import component, pretrain
from kubeyolo.steps.call import StepCall
from kubeyolo.steps.outcome import read_record
from kubeyolo.steps.settings import StepSettings, read_sections
from kubeyolo.storage.place import Place
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work
from tests.alone import run_alone
from tests.steps.called import validate_dataset, write_record
from tests.steps.fixed_detector import CLASSES, MODEL, fixed_bundle, write_data
from tests.steps.fixed_work import file_of, fix_work

RUN_ID = "3f0c9a1b-22d4-4c55-9a0e-0a1b2c3d4e5f"
TIMES = ("second", "time", "date", "started", "ended")


class Artifact:
    """What is needed of each kind of kfp's artifacts."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.metadata: dict[str, Any] = {}
        self.metrics: dict[str, float] = {}
        self.matrix: list[list[int]] = []
        self.categories: list[str] = []

    def log_metric(self, metric: str, value: float) -> None:
        self.metrics[metric] = value

    def log_confusion_matrix(self, categories: list[str], matrix: list[list[int]]) -> None:
        self.categories, self.matrix = categories, matrix

    @property
    def text(self) -> str:
        return Path(self.path).read_text()


@dataclass
class Tasks:
    """The tasks of a training, called as the pipeline calls them.

    Attributes:
        folder: For the artifacts.
        form: Fields of the form.
        artifacts: What was filled, by name.
    """

    folder: Path
    form: dict[str, str]
    artifacts: dict[str, Any] = field(default_factory=dict)

    def call(self, step: str, function: str = "", **given: Any) -> tuple[Any, ...]:
        """Call a step with artifacts in files of their own."""
        made = {artifact.name: Artifact(self.folder / step / artifact.name) for artifact in STEPS[step].artifacts}
        self.artifacts |= made
        return tuple(getattr(component, function or step)(**given, **made))

    def configure(self, **form: str) -> dict[str, Mapping[str, Any]]:
        """Return the structs, by step; the first is that of the run."""
        structs = self.call("configure", "configure_training", **self.form | form)
        names = ("run", "validate_dataset", "pretrain_backbone", "train", "evaluate", "export_model", "quantize")
        return dict(zip((*names, "publish", "record"), structs, strict=True))

    def run(self, **form: str) -> dict[str, str]:
        """Run all tasks and return their references."""
        given = self.configure(**form)
        dataset, validated = self.call("validate_dataset", settings=given["validate_dataset"])
        backbone, _ = self.call("pretrain_backbone", settings=given["pretrain_backbone"], dataset=dataset)
        trained, training = self.call("train", settings=given["train"], dataset=dataset, backbone=backbone)
        (evaluation,) = self.call("evaluate", settings=given["evaluate"], bundle=trained, dataset=dataset)
        exported, _ = self.call("export_model", settings=given["export_model"], bundle=trained, dataset=dataset)
        quantized, _ = self.call("quantize", settings=given["quantize"], bundle=exported, dataset=dataset)
        last = {"settings": given["publish"], "evaluation": evaluation, "training": training}
        published, record = self.call("publish", bundle=quantized, **last)
        bundles = {"backbone": backbone, "trained": trained, "exported": exported, "quantized": quantized}
        records = {"validated": validated, "training": training, "evaluation": evaluation, "record": record}
        return {"dataset": dataset, **bundles, "published": published, **records, "index": given["publish"]["index"]}


def make_tasks(folder: Path, patch: pytest.MonkeyPatch) -> Tasks:
    patch.setenv("KUBEYOLO_CACHE", str(folder / "cache"))
    patch.delenv(component.RUN_ID, raising=False)
    network = open_bundle(Place.of(fixed_bundle(folder / "fixed", {"onnx": 4}))).path(ONNX)
    form = {"data": str(write_data(folder / "data")), "store": str(folder / "store")}
    fix_work(patch, folder, network)
    return Tasks(folder / "artifacts", form | {"settings": "{quantize: {max_drop: 100}}"})


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tasks:
    return make_tasks(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tasks, dict[str, str]]:
    """Tasks that have run, with the references of what they have made; nobody changes it."""
    with pytest.MonkeyPatch.context() as patch:
        tasks = make_tasks(tmp_path_factory.mktemp("whole"), patch)
        return tasks, tasks.run(version="1.0.0")


def failure(call: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code of a step that fails, and the one line that it says."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        call()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return cast(int, ended.value.code), line.removeprefix("error: ")


def test_a_step_begins_without_the_packages_that_few_steps_need() -> None:
    slow = {"matplotlib", "mindspore", "onnx", "onnxruntime", "kubernetes", "minio", "kfp"}
    code = f"import sys, kubeyolo.steps.component; print('loaded', *({slow} & sys.modules.keys()))"
    assert run_alone(code) == "loaded"


def test_every_artifact_is_filled_from_what_the_step_has_made(whole_run: tuple[Tasks, dict[str, str]]) -> None:
    tasks, made = whole_run
    artifacts = tasks.artifacts
    kinds = {each.name: each.kind for step in STEPS.values() for each in step.artifacts}
    # Each file is there: kfp's local cache takes a step as not done when one is missing.
    assert all(Path(artifact.path).is_file() for artifact in artifacts.values())
    for name, artifact in artifacts.items():
        if kinds[name] == "HTML":
            assert artifact.text.lstrip().lower().startswith("<!doctype html"), name
        if kinds[name] in ("Dataset", "Model"):
            assert json.loads(artifact.text) == artifact.metadata, name
    assert "| quantize.max\\_drop | 100 |" in artifacts["plan"].text
    assert artifacts["model_card"].text == open_bundle(Place.of(made["published"])).path("MODEL_CARD.md").read_text()
    confusion = artifacts["confusion_matrix"]
    assert confusion.categories == [*CLASSES, "background"]
    assert len(confusion.matrix) == 3 and sum(map(sum, confusion.matrix)) >= 3


def test_an_evaluation_stores_its_analysis_and_the_bundle_its_best_thresholds(
    whole_run: tuple[Tasks, dict[str, str]],
) -> None:
    tasks, made = whole_run
    record = read_record(Place.of(made["evaluation"]))
    documents = {
        name: json.loads(Place.of(record.outputs[name]).read()) for name in ("analysis", "images", "suspects", "result")
    }
    assert [row["file_name"] for row in documents["images"]] == sorted(row["file_name"] for row in documents["images"])
    hits = sum(row["hits"] for row in documents["images"])
    assert hits == sum(row["hits"] + row["misses"] for row in documents["images"]) == documents["result"]["boxes"]
    analysis = documents["analysis"]
    assert analysis["classes"] == list(CLASSES) and analysis["error_kinds"]["AP50"] == pytest.approx(1.0)
    assert {row["id"] for row in documents["suspects"]["images"]} <= {row["id"] for row in documents["images"]}
    page = tasks.artifacts["evaluation_report"].text
    assert "What the errors cost" in page and "Share of right detections over their score" in page
    best = record.metrics["best_thresholds"]
    assert best == documents["result"]["best_thresholds"] and 0 < best["overall"] < 1
    kept = open_bundle(Place.of(made["published"])).manifest.metrics["best_thresholds"]
    assert kept["mindspore"] == best and set(kept) == {"mindspore", "onnx", "int8"}


def test_a_handle_has_uri_digest_classes_and_figures_and_no_times(tasks: Tasks) -> None:
    made = tasks.run(version="1.0.0")
    handles = {
        "validated_dataset": ("dataset", {"name": "data", "classes": 2, "train_images": 3, "val_boxes": 3}),
        "trained_detector": ("trained", {"model": MODEL, "classes": "disc, ring", "steps": 3, "loss": 0.5}),
        "exported_detector": ("exported", {"model": MODEL, "AP_onnx": pytest.approx(0.6)}),
        "quantized_detector": ("quantized", {"model": MODEL, "AP_int8": pytest.approx(0.6), "drop_points": 0.0}),
        "published_detector": (
            "published",
            {"version": "1.0.0", "classes": "disc, ring", "AP": pytest.approx(0.6), "AP_int8": pytest.approx(0.6)},
        ),
    }
    metadata = {name: dict(tasks.artifacts[name].metadata) for name in handles}
    for name, (output, figures) in handles.items():
        stored = Place.of(made[output])
        assert (metadata[name]["store_uri"], metadata[name]["digest"]) == (stored.uri, stored.digest), name
        assert {key: metadata[name][key] for key in figures} == figures, name
        assert not [key for key in metadata[name] if any(word in key.lower() for word in TIMES)], name
    # The same work, done again at another time in another store, is the same artifact but for its place.
    tasks.run(version="1.0.0", store=tasks.form["store"] + "2")
    places = {"store_uri", "digest"}
    for name in ("validated_dataset", "trained_detector"):
        again = tasks.artifacts[name].metadata
        assert {key: again[key] for key in again if key not in places} == {
            key: metadata[name][key] for key in metadata[name] if key not in places
        }
    assert tasks.artifacts["validated_dataset"].metadata["digest"] == metadata["validated_dataset"]["digest"]


def test_the_summary_has_at_most_ten_rows(whole_run: tuple[Tasks, dict[str, str]]) -> None:
    summary = whole_run[0].artifacts["summary"].metrics
    assert set(summary) == {
        *("AP", "AP50", "AP_onnx", "AP_int8", "drop_points", "onnx_MB", "int8_MB"),
        "training_seconds",
    }
    assert len(summary) <= 10
    assert summary["AP"] == summary["AP_onnx"] == summary["AP_int8"] == pytest.approx(0.6, abs=1e-4)
    assert summary["drop_points"] == 0.0 and summary["training_seconds"] == 1.5 and 0 < summary["onnx_MB"] < 1


def test_the_same_tasks_again_return_the_same_references(tasks: Tasks) -> None:
    first = tasks.run()
    assert tasks.run() == first
    assert all(Place.of(first[name]).digest for name in first if name != "index")


def test_the_record_of_the_last_step_is_copied_to_the_index(whole_run: tuple[Tasks, dict[str, str]]) -> None:
    made = whole_run[1]
    index = read_index(Place.of(made["index"]))
    assert index == read_record(Place.of(made["record"]))
    assert (index.step, index.outputs["bundle"]) == ("publish", made["published"])
    assert made["published"] == read_bundle(Place.of(Place.of(made["published"]).uri)).reference


@pytest.mark.parametrize("min_ap", ["0.5", "0.9"])
def test_the_gate_of_another_run_judges_known_numbers(
    tasks: Tasks, min_ap: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tasks.run()
    given = tasks.configure(min_ap=min_ap)
    inputs = {"bundle": made["trained"], "dataset": made["dataset"], "settings": given["evaluate"]}

    def refuse(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("kubeyolo.steps.detection.evaluate_bundle", refuse)
    if min_ap == "0.5":
        assert tasks.call("evaluate", **inputs) == (made["evaluation"],)
        return
    code, line = failure(lambda: tasks.call("evaluate", **inputs), capsys)
    assert code == WorkError.exit_code
    assert line == (
        f"{MODEL} on data: AP is 0.6000, below the gate evaluate.min_ap = 0.9; 95 % interval 0.6000 to 0.6000: 3 "
        "images with objects are too few to tell (30 are required); train longer or lower the gate"
    )
    output = Place.of(made["evaluation"]).uri.removesuffix("/metrics.json")
    assert json.loads(file_of(f"{output}/failure.json").read_text())["message"] == line
    # Where it passes again, nothing says any more that it has failed.
    assert tasks.call("evaluate", **inputs | {"settings": tasks.configure()["evaluate"]}) == (made["evaluation"],)
    assert not file_of(f"{output}/failure.json").exists()


WITH_SETTINGS = sorted({*STEPS} - {"configure"})


def called(tasks: Tasks, step: str, settings: Mapping[str, Any], **inputs: str) -> Callable[[], object]:
    """Return the call of a step with texts for all of its inputs."""
    given = {name: inputs.get(name, "file:///nowhere") for name in STEPS[step].inputs}
    return lambda: tasks.call(step, settings=settings, **given)


@pytest.mark.parametrize("step", WITH_SETTINGS)
def test_an_unknown_key_of_the_settings_is_refused(tasks: Tasks, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"store": tasks.form["store"], "code": "c", "stoer": "x"}
    code, line = failure(called(tasks, step, settings), capsys)
    assert code == InputError.exit_code
    assert line.startswith(f"settings of {step}: stoer: Extra inputs are not permitted; use the output of the step")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"code": "c"}, "settings of train: store: Field required"),
        ({"config": {"train": {"max_epochs": 3}}}, "train.max_epochs = 3: Extra inputs are not permitted"),
        ({"config": {"train": {"max_epoch": 0}}}, "train.max_epoch = 0: Input should be greater than"),
        ({"config": {"trian": {}}}, "trian = {}: Extra inputs are not permitted"),
        ({"launcher": "vulcano"}, "did you mean 'volcano'"),
    ],
)
def test_settings_that_a_step_cannot_use_are_refused(
    tasks: Tasks, settings: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (
        settings
        if settings == {"code": "c"}
        else {"store": tasks.form["store"], "code": "c", "model": MODEL, **settings}
    )
    code, line = failure(called(tasks, "train", whole), capsys)
    assert code == InputError.exit_code and words in line


@pytest.mark.parametrize("step", ["evaluate", "export_model", "quantize"])
def test_the_folder_of_a_result_does_not_depend_on_how_numbers_travelled(step: str) -> None:
    """The command line has 8 and 1.0, a run on this machine 8.0 and 1.0, one on a cluster 8 and 1."""
    config = load_config()
    sections = read_sections(config, step)

    def travelled(change: Callable[[float], float]) -> str:
        def each(value: Any) -> Any:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return change(value) if is_number else value

        values = {name: {key: each(value) for key, value in section.items()} for name, section in sections.items()}
        given = StepSettings(store="file:///s", code="c", model=config.model, config=values)
        call = StepCall(store=Place.of(given.store), config=given.configuration(), code=given.code)
        return call.begun_output(step, config.model, bundle="1" * 64, dataset="2" * 64).uri

    def as_whole(value: float) -> float:
        return int(value) if value == int(value) else value

    assert len({travelled(lambda value: value), travelled(float), travelled(as_whole)}) == 1


def test_whole_numbers_that_went_through_a_pipeline_as_floats_are_whole_again() -> None:
    struct = {
        "store": "s",
        "code": "c",
        "model": MODEL,
        "config": {"train": {"max_epoch": 5.0, "lr_epochs": [1.0, 2.0]}},
    }
    config = StepSettings.parse(struct, "train").configuration()
    assert (config.train.max_epoch, config.train.lr_epochs) == (5, (1, 2))


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (step, name)
        for step, record in STEPS.items()
        for name in record.inputs
        if step not in ("pretrain_backbone", "promote")
    ],
)
def test_a_reference_with_another_digest_is_refused_in_one_line(
    whole_run: tuple[Tasks, dict[str, str]],
    step: str,
    wrong: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = whole_run[1]
    # Training processes open what they read.
    monkeypatch.setattr("kubeyolo.launch.local.launch_work", open_inputs)
    inputs = {name: made[name] for name in ("dataset", "backbone", "evaluation", "training")}
    inputs |= {"bundle": made["quantized" if step in ("publish", "promote") else "exported"]}
    right = Place.of(inputs[wrong])
    uri, digest = right.uri, right.digest
    inputs[wrong] = Place.of(uri).pinned("0" * 64).reference
    # In another store nothing is known yet.
    settings = {"store": str(tmp_path / "store"), "code": results_source(), "model": MODEL, "launcher": "local"}
    settings |= {"current": made["quantized"]} if step == "evaluate_current" else {}
    tasks = Tasks(tmp_path / "artifacts", {})
    code, line = failure(called(tasks, step, settings, **inputs), capsys)
    assert code == InputError.exit_code
    assert line == (
        f"{uri}: its content has changed: expected sha256 {'0' * 12}…, found {digest[:12]}…; "
        "run the step that wrote it again"
    )


@pytest.mark.parametrize("wrong", ["bundle", "evaluation", "current"])
def test_promote_refuses_references_with_another_digest(
    whole_run: tuple[Tasks, dict[str, str]], wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, store = whole_run[1], str(tmp_path / "store")
    current = write_record(str(tmp_path / "current"), "evaluate_current", 1.0, {"bundle": ""}, {})
    inputs = {"bundle": made["quantized"], "evaluation": made["evaluation"], "training": made["training"]}
    inputs |= {"current": current, "dataset": made["dataset"]}
    right = Place.of(inputs[wrong])
    uri, digest = right.uri, right.digest
    settings = {"store": store, "code": "c", "model": MODEL, "latest": f"{store}/models/{MODEL}/latest.json"}
    tasks = Tasks(tmp_path / "artifacts", {})
    code, line = failure(
        called(tasks, "promote", settings, **inputs | {wrong: Place.of(uri).pinned("0" * 64).reference}), capsys
    )
    assert code == InputError.exit_code
    assert line.startswith(f"{uri}: its content has changed: expected sha256 {'0' * 12}…, found {digest[:12]}…")
    assert read_model_pointer(Place.of(settings["latest"])) is None
    # With the right ones it is published and current, and the summary is that of a training.
    published, record = cast(tuple[str, str], called(tasks, "promote", settings, **inputs)())
    assert (
        published
        == read_bundle(Place.of(f"{store}/models/{MODEL}/{read_record(Place.of(record)).metrics['version']}")).reference
    )
    pointer = read_model_pointer(Place.of(settings["latest"]))
    assert pointer is not None and pointer.bundle == Place.of(published).uri
    assert tasks.artifacts["summary"].metrics == whole_run[0].artifacts["summary"].metrics


def open_inputs(work: Work) -> None:
    spec = TrainingSpec.model_validate_json(work.document)
    open_dataset(Place.of(spec.dataset))
    assert spec.backbone is not None
    open_bundle(Place.of(spec.backbone))


def test_a_reference_to_what_was_made_anew_is_refused(tasks: Tasks, capsys: pytest.CaptureFixture[str]) -> None:
    made = tasks.run()
    manifest = file_of(f"{Place.of(made['trained']).uri}/bundle.json")
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    given = {"bundle": made["trained"], "dataset": made["dataset"]}
    settings = tasks.configure(settings="{evaluate: {max_det: 7}}")["evaluate"]
    code, line = failure(lambda: tasks.call("evaluate", settings=settings, **given), capsys)
    assert code == InputError.exit_code and f"{Place.of(made['trained']).uri}: its content has changed" in line


def test_settings_of_other_sections_reach_the_pretraining(
    tasks: Tasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, Config]] = []

    def take(spec: TrainingSpec, dataset: Dataset, output: Place, *others: Any) -> None:
        seen.append((dataset.uri, output.uri, spec.config))
        raise WorkError("seen")

    def written(name: str, seed: int) -> str:
        return validate_dataset(str(write_data(tmp_path / name / "d", seed)), str(tmp_path / name)).dataset

    monkeypatch.setattr(pretrain, "pretrain_backbone", take)
    dataset, elsewhere, other = written("one", 1), written("elsewhere", 1), written("other", 2)

    def call(config: dict[str, Any], dataset: str = dataset, fingerprint: str = "") -> None:
        struct = StepSettings(
            store=(tmp_path / "s").as_uri(), code="c", model=MODEL, config=config, fingerprint=fingerprint
        ).struct()
        with pytest.raises(SystemExit):
            tasks.call("pretrain_backbone", settings=struct, dataset=dataset)

    call({})
    call(
        {"train": {"seed": 4.0, "grad_clip": 1.0}, "pretrain": {"device_target": "Ascend"}, "augment": {"hsv_s": 0.25}}
    )
    call({"train": {"seed": 9}})
    call({}, dataset=elsewhere)
    call({}, dataset=other)
    # Images by class are known by their fingerprint; then the data set does not count.
    call({"pretrain": {"data": "file:///images"}}, fingerprint="3")
    call({"pretrain": {"data": "file:///images"}}, dataset=other, fingerprint="3")
    call({"pretrain": {"data": "file:///images"}}, fingerprint="4")
    outputs = [output for _, output, _ in seen]
    assert outputs[3] == outputs[0] and outputs[6] == outputs[5]
    assert len(set(outputs)) == len(outputs) - 2
    config = seen[1][2]
    assert (config.train.seed, config.train.grad_clip, config.pretrain.device_target) == (4, 1.0, "Ascend")
    assert config.augment.hsv_s == 0.25
    assert seen[2][2].train.seed == 9


def test_configure_leaves_a_plan_a_record_and_a_note(
    tasks: Tasks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tasks.configure(max_epoch="7")
    run, store = given["run"], tasks.form["store"]
    assert (run["store"], run["model"], run["data"]) == (store, MODEL, tasks.form["data"])
    record = read_record(Place.of(cast(str, given["record"])))
    assert record.step == "configure" and record.metrics["name"] == run["name"]
    assert record.report == Path(store, "runs", run["name"], "configure", "report.html").as_uri()
    assert record.metrics["changed"] == 2  # max_epoch and max_drop
    assert f"run {run['name']}" in capsys.readouterr().out.splitlines()
    assert "| train.max\\_epoch | 7 |" in tasks.artifacts["plan"].text
    # In a pod a run is also found by the id that Kubeflow has given it; there no folder can be read.
    assert not (Path(store) / "runs" / "ids").exists()
    monkeypatch.setenv(component.RUN_ID, RUN_ID)
    code, line = failure(lambda: tasks.configure(), capsys)
    assert code == InputError.exit_code and "pods cannot read folders of this machine" in line


def test_configure_notes_a_run_of_kubeflow_under_its_id(
    tasks: Tasks, minio_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Place.of(f"minio://{minio_bucket}/data/cells").store.put_tree(Path(tasks.form["data"]), "")
    store = f"minio://{minio_bucket}/store"
    tasks.form |= {"data": f"minio://{minio_bucket}/data/cells", "store": store}
    monkeypatch.setenv(component.RUN_ID, RUN_ID)
    name = tasks.configure()["run"]["name"]
    assert read_note(Place.of(store), RUN_ID) == {
        "name": name,
        "pipeline": "detector-training",
        "index": run_output(Place.of(store), name, "result.json").uri,
    }


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"settings": "{train: {warmup_epoch: 1}}"}, "did you mean 'train.warmup_epochs'"),
        ({"data": "absent"}, "absent"),
        ({"max_epoch": "many"}, "train.max_epoch = 'many'"),
    ],
)
def test_a_form_that_cannot_be_used_fails_in_configure_with_one_line(
    tasks: Tasks, form: dict[str, str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks.form |= form
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        tasks.configure()
    said = capsys.readouterr()
    assert ended.value.code == InputError.exit_code
    assert words in said.err and len(said.err.splitlines()) == 1
    events = [event for event in map(parse_event, said.out.splitlines()) if event]
    assert [event.kind for event in events] == ["started", "failed"]
    assert not (Path(tasks.form["store"]) / "runs").exists()

"""What a message offers to type is taken out of the message, typed, and works.

Trainings here have no network: one step an epoch, a weight of one number. All else of them is real: outputs,
checkpoints, bundles, records, and what is refused.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kubeyolo.bundle import open_bundle
from kubeyolo.cli.app import main
from kubeyolo.config.load import load_config
from kubeyolo.errors import InputError, InterruptedWork, WorkError
from kubeyolo.launch.settings import cluster_settings
from kubeyolo.models.named_facts import check_batch_norm
from kubeyolo.steps.earlier_trainings import command_of
from kubeyolo.steps.evaluate import judge
from kubeyolo.steps.same_training import identity_of
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import TrainingState, newest_checkpoint, write_checkpoint
from kubeyolo.training.compilations import Compilations
from kubeyolo.training.finite import Guard, remedy_for, remembered
from kubeyolo.training.history import FILE_NAME, HistoryRow, TrainingHistory
from kubeyolo.training.loop_parts import Output
from kubeyolo.training.output import is_complete, publish_weights, state_to_continue
from kubeyolo.training.pretrain import _warn_if_no_longer
from kubeyolo.training.reach import schedule_warnings
from kubeyolo.training.spec import TrainingSpec
from kubeyolo.work import Work
from tests.steps.called import validate_dataset
from tests.steps.fixed_detector import fixed_bundle, write_data
from tests.steps.fixed_work import fix_work, manifest


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A stored data set and bundles to work on, in folders whose names a shell would divide."""
    folder = tmp_path_factory.mktemp("my remedies")
    dataset = validate_dataset(str(write_data(folder / "data")), str(folder / "store")).dataset
    exported = fixed_bundle(folder / "exported", {"onnx": 4}, dataset)
    other = validate_dataset(str(write_data(folder / "other data", 1)), str(folder / "store")).dataset
    names = {"D": dataset, "E": other, "B": exported}
    return {name: shlex.quote(reference.partition("@")[0]) for name, reference in names.items()}


class Trainings:
    """Trains without a network, as far as it is let; remembers what it was started for."""

    def __init__(self) -> None:
        self.started: list[TrainingSpec] = []
        self.stops_at: int | None = None
        self.not_finite_above: float | None = None

    def __call__(self, work: Work) -> None:
        spec = TrainingSpec.model_validate_json(work.document)
        self.started.append(spec)
        place = Place.of(spec.output)
        store, identity = place.store, identity_of(spec, place)
        if is_complete(place, identity, spec, print):
            return
        state = state_to_continue(store, identity, spec, True, print)
        if state is None:
            state = TrainingState(step=0, identity=identity, weights={"w": np.zeros(1, np.float32)})
        else:
            print(f"resuming at step {state.step}")
        detector = spec.task == "detector"
        section: Any = spec.config.train if detector else spec.config.pretrain
        guard = Guard(remedy_for(spec.config, spec.task))
        end = min(section.max_epoch, self.stops_at or section.max_epoch)
        row = HistoryRow(kind="train" if detector else "pretrain", step=end, epoch=end - 1, loss=0.5, box=0.1)
        history = TrainingHistory.from_bytes(state.history).to_bytes() + TrainingHistory([row]).to_bytes()
        state = replace(state, step=end, history=history, code_digest=spec.code_digest, sessions=[(0, 1.0)])
        write_checkpoint(store, state)
        store.write_bytes(FILE_NAME, history)
        with remembered(store):
            if self.not_finite_above is not None and section.lr > self.not_finite_above:
                raise guard.loss(end, "(nan)", "(1)")
            if end < section.max_epoch:
                raise InterruptedWork(f"interrupted: stopped after step {end}; run the same command again to continue")
            weights = {"w": np.full(1, end, np.float32)}
            engine: Any = SimpleNamespace(step=end, averaged=lambda: weights, compilations=Compilations())
            output = Output(place, state.identity, spec.code_digest, spec.writer)
            publish_weights(output, engine, state.sessions, manifest(spec), guard)


@dataclass
class Outcome:
    code: int
    text: str


@dataclass
class Terminal:
    """Types command lines, with the letters of places in them."""

    type: Callable[[str], Outcome]
    trainings: Trainings


@pytest.fixture
def terminal(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Terminal]:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a place").mkdir()
    monkeypatch.chdir(tmp_path / "a place")
    fix_work(monkeypatch, tmp_path, open_bundle(Place.of(shlex.split(places["B"])[0])).path("model.onnx"))
    trainings = Trainings()
    monkeypatch.setattr("kubeyolo.launch.local.launch_work", trainings)

    def type_line(line: str) -> Outcome:
        for name, place in places.items():
            line = re.sub(rf"(?<![\w-]){name}(?![\w-])", lambda _, place=place: place, line)  # type: ignore[misc]
        name, *arguments = shlex.split(line)
        assert name == "kubeyolo"
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        shown = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), shown.out + shown.err)

    yield Terminal(type_line, trainings)


@dataclass(frozen=True)
class Case:
    """A message and what it offers.

    Attributes:
        before: Lines that are typed first and work.
        asks: The line that gets the message.
        says: Pattern of the message; its group is what it says to type.
        then: The line with it in place of {}.
        shows: What that line prints.
    """

    before: tuple[str, ...]
    asks: str
    says: str
    then: str = "{}"
    shows: str = ""


TEN = "kubeyolo train D -o X --set train.max_epoch=10"
NOTHING = "the result of the same work is at"
BACK = r"set it back \((.+?)\) to "
ELSEWHERE = r"choose another output with (--output)"
PRETRAINED = "kubeyolo pretrain D -o X --set pretrain.min_object_size=8"

CASES = {
    "another rate": Case((TEN,), f"{TEN} --set train.lr=0.5", BACK, TEN + " {}", NOTHING),
    "another rate, elsewhere": Case(
        (TEN,), f"{TEN} --set train.lr=0.5", ELSEWHERE, "kubeyolo train D --set train.lr=0.5 {} Y", "train"
    ),
    "a list": Case((TEN,), f"{TEN} --set 'train.lr_epochs=[1, 2]'", BACK, TEN + " {}", NOTHING),
    "a word": Case((TEN,), f"{TEN} --set train.optimizer=adamw", BACK, TEN + " {}", NOTHING),
    "another model": Case((TEN,), f"{TEN} --model yolov5s-r7", BACK, TEN + " {}", NOTHING),
    "other data": Case((TEN,), TEN.replace("D", "E"), ELSEWHERE, TEN.replace("D", "E").replace("-o X", "{} Y")),
    "fewer epochs": Case((TEN,), TEN.replace("10", "5"), r"shorter; use (--set \S+), or", f"{TEN[:-1]}5 {{}}", NOTHING),
    "fewer epochs, elsewhere": Case((TEN,), TEN.replace("10", "5"), ELSEWHERE, "kubeyolo train D {} Y"),
    "another pretraining": Case(
        (PRETRAINED,), f"{PRETRAINED} --set pretrain.lr=0.5", BACK, PRETRAINED + " {}", NOTHING
    ),
    "no pretraining": Case(
        (PRETRAINED,), f"{PRETRAINED} --set pretrain.enabled=false", BACK, PRETRAINED + " {}", NOTHING
    ),
    "fewer epochs of a pretraining": Case(
        (PRETRAINED,),
        f"{PRETRAINED} --set pretrain.max_epoch=2",
        r"shorter; use (--set \S+),",
        PRETRAINED + " {}",
        NOTHING,
    ),
    "another export": Case(
        ("kubeyolo export B D -o X",),
        "kubeyolo export B D -o X --set export.parity_images=3",
        BACK,
        "kubeyolo export B D -o X {}",
        NOTHING,
    ),
    "another quantization": Case(
        ("kubeyolo quantize B D -o X --set quantize.max_drop=99",),
        "kubeyolo quantize B D -o X --set quantize.max_drop=98",
        BACK,
        "kubeyolo quantize B D -o X {}",
        NOTHING,
    ),
    "another evaluation": Case(
        ("kubeyolo evaluate B D -o X --runtime onnx",),
        "kubeyolo evaluate B D -o X --runtime onnx --set evaluate.max_det=5",
        BACK,
        "kubeyolo evaluate B D -o X --runtime onnx {}",
        NOTHING,
    ),
    "another runtime": Case(
        ("kubeyolo evaluate B D -o X --runtime onnx",),
        "kubeyolo evaluate B D -o X",
        BACK,
        "kubeyolo evaluate B D -o X {}",
        NOTHING,
    ),
    "an evaluation of other data": Case(
        ("kubeyolo evaluate B D -o X --runtime onnx",),
        "kubeyolo evaluate B E -o X --runtime onnx",
        ELSEWHERE,
        "kubeyolo evaluate B E --runtime onnx {} Y",
        "AP",
    ),
    "a pair without a value": Case((), f"{TEN} --set train.lr", r"such as (--set \S+)", TEN + " {}"),
    "a key that is misspelt": Case(
        (), f"{TEN} --set train.max_epcoh=5", r"did you mean '(train\.max_epoch)'", "kubeyolo train D -o X --set {}=5"
    ),
    "a key of another program": Case(
        (), f"{TEN} --set train.epochs=5", r"did you mean '(train\.max_epoch)'", "kubeyolo train D -o X --set {}=5"
    ),
    "an option of another program": Case((), f"{TEN} --epochs 5", r"use (--set [^;\s]+);", TEN + " {}"),
    "pairs as of another program": Case(
        (), f"{TEN} epochs=50 lr0=0.1", r"use (--set \S+ --set [^;\s]+);", TEN + " {}", "train"
    ),
    "a model that is misspelt": Case((), f"{TEN} -m yolov5n-r", r"did you mean '([^']+)'", TEN + " -m {}"),
    "a launcher that is misspelt": Case((), f"{TEN} --launcher locl", r"mean '(\w+)'", TEN + " --launcher {}"),
    "no data set there": Case((), "kubeyolo train . -o X", r"give the (URI) of a", "kubeyolo train D -o X"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_command_says_to_type_works(terminal: Terminal, name: str) -> None:
    case = CASES[name]
    for line in case.before:
        outcome = terminal.type(line)
        assert outcome.code == 0, outcome.text
    asked = terminal.type(case.asks)
    said = re.search(case.says, asked.text)
    assert asked.code == 2 and said, asked.text
    outcome = terminal.type(case.then.format(said[1]))
    assert outcome.code == 0 and case.shows in outcome.text, outcome.text


# Trainings that are found, extended, or begun anew.


def test_more_epochs_extend_and_fewer_say_how_to_go_on(terminal: Terminal) -> None:
    first = terminal.type(TEN)
    terminal.trainings.stops_at = 15
    longer = terminal.type(TEN.replace("10", "20"))
    assert longer.code == 130 and "extending from 10 to 20 epochs at step 10" in longer.text
    before = terminal.type(TEN)
    said = re.search(r"to continue it, run the same command with (--set \S+)", before.text)
    assert before.code == 0 and first.text.splitlines()[-1] in before.text and said
    terminal.trainings.stops_at = None
    after = terminal.type(f"{TEN} {said[1]}")
    assert after.code == 0 and "resuming at step 15" in after.text
    assert open_bundle(Place.of("X/bundle")).manifest.metrics["extended"] == ["from 10 to 20 epochs at step 10"]
    assert "extended" in after.text and "from 10 to 20 epochs at step 10" in Path("X/report.html").read_text()


@pytest.mark.parametrize("command", ["train", "pretrain"])
def test_an_unfinished_training_of_another_version_is_named_and_goes_on_as_typed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    Path("my settings.yaml").write_text(f"augment: {{hsv_h: 0.1}}\n{command}: {{max_epoch: 9}}\n")
    line, terminal.trainings.stops_at = f"kubeyolo {command} D --config 'my settings.yaml' --set train.seed=3", 4
    assert terminal.type(line).code == 130
    place = terminal.trainings.started[-1].output
    terminal.trainings.stops_at = None
    for module in ("kubeyolo.cli.steps", "kubeyolo.steps.facade"):
        monkeypatch.setattr(f"{module}.weights_source", lambda: "another version")
    # A damaged training of the same model next to it is left out.
    broken = Place.of(f"{place.rpartition('-')[0]}-0123456789ab").store
    broken.write_bytes("checkpoints/step-00000009/checkpoint.json", b"{")
    asked = terminal.type(line)
    said = re.search(r"unfinished at step 4 of .*; this training .* To continue the earlier training: (.+)", asked.text)
    assert asked.code == 0 and said, asked.text
    assert terminal.trainings.started[-1].output != place
    outcome = terminal.type(said[1])
    assert outcome.code == 0 and "resuming at step 4" in outcome.text and "a different version" in outcome.text
    assert terminal.trainings.started[-1].output == place and len(terminal.trainings.started) == 3
    # The new place holds something now: nothing more is said.
    assert "To continue the earlier" not in terminal.type(line).text


def test_an_unfinished_training_of_a_version_with_fewer_settings_is_named_and_goes_on_as_typed(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, terminal.trainings.stops_at = "kubeyolo train D --model yolov4-csp --set train.max_epoch=9", 4
    assert terminal.type(line).code == 130
    place = terminal.trainings.started[-1].output
    state = newest_checkpoint(Place.of(place).store, print)
    assert state is not None
    # The preset's max_aspect is 20; versions without this setting worked as with 100.
    assert state.identity.pop("augment.max_aspect") == 20
    write_checkpoint(Place.of(place).store, state)
    for module in ("kubeyolo.cli.steps", "kubeyolo.steps.facade"):
        monkeypatch.setattr(f"{module}.weights_source", lambda: "another version")
    terminal.trainings.stops_at = None
    asked = terminal.type(line)
    said = re.search(r"did not have augment.max_aspect, left .* at step 4 of .* training as it was: (.+)", asked.text)
    assert asked.code == 0 and said, asked.text
    assert terminal.type(said[1].replace(" --set augment.max_aspect=100.0", "")).code == 2
    outcome = terminal.type(said[1])
    assert outcome.code == 0 and "resuming at step 4" in outcome.text
    assert terminal.trainings.started[-1].output == place


@pytest.mark.parametrize("stops_at", [None, 4])
def test_a_shorter_training_is_named_and_extended_as_typed(terminal: Terminal, stops_at: int | None) -> None:
    line = "kubeyolo train D --set train.max_epoch="
    terminal.trainings.stops_at = stops_at
    assert terminal.type(f"{line}10").code == (130 if stops_at else 0)
    terminal.trainings.stops_at = None
    asked = terminal.type(f"{line}20")
    state = "unfinished at step 4" if stops_at else "finished at step 10"
    pattern = rf"{state}; .* To extend a copy of the shorter training from 10 to 20 epochs: (.+) && (.+)"
    said = re.search(pattern, asked.text)
    assert asked.code == 0 and said, asked.text
    assert terminal.type(said[1]).code == 0
    outcome = terminal.type(said[2])
    assert outcome.code == 0 and f"extending from 10 to 20 epochs at step {stops_at or 10}" in outcome.text
    # The place of the shorter one is as it was.
    assert terminal.type(f"{line}10").code == 0
    place = terminal.trainings.started[0].output
    refused = terminal.type(f"{line}20 --output {shlex.quote(place)}")
    said = re.search(
        r"to extend it from 10 to 20 epochs, copy it first: (.+); then .* with (--output .+)", refused.text
    )
    assert refused.code == 2 and said, refused.text
    assert terminal.type(said[1]).code == 0
    assert terminal.type(f"{line}20 {said[2]}").code == 0
    assert open_bundle(Place.of(f"{place}/bundle")).manifest.metrics.get("extended") is None


def test_the_command_of_a_step_of_a_pipeline_is_made_of_its_settings(
    terminal: Terminal, places: dict[str, str]
) -> None:
    sets = [
        "train.lr=0.002",
        "train.optimizer=adamw",
        "train.lr_epochs=[3,4]",
        "augment.mosaic=0.5",
        "data.cache=false",
    ]
    dataset = shlex.split(places["D"])[0]
    spec = TrainingSpec(dataset=dataset, output="", config=load_config("yolov5s-r7", sets=sets))
    outcome = terminal.type(command_of(spec, "train", dataset, "my output"))
    assert outcome.code == 0
    started = terminal.trainings.started[-1]
    output = Place.of("my output")
    assert identity_of(started, output) == identity_of(spec, output) and started.output == output.uri
    assert started.config.data == spec.config.data


@pytest.mark.parametrize(
    ("line", "sets", "limit", "says"),
    [
        (TEN, "train.lr=100", 1.0, r"run the same command with (--set train\.lr=\S+); it starts"),
        (TEN, "train.lr=0.005", 0.001, r"run the same command with (--set train\.lr=\S+), or"),
        (PRETRAINED, "pretrain.lr=100", 1.0, r"run the same command with (--set pretrain\.lr=\S+); it"),
    ],
)
def test_after_values_that_are_not_finite_the_remedy_begins_anew(
    terminal: Terminal, line: str, sets: str, limit: float, says: str
) -> None:
    terminal.trainings.not_finite_above = limit
    asked = terminal.type(f"{line} --set {sets}")
    said = re.search(says, asked.text)
    assert asked.code == 1 and said, asked.text
    outcome = terminal.type(f"{line} --set {sets} {said[1]}")
    assert outcome.code == 0 and "starting from step 0 with" in outcome.text


def test_an_extension_whose_values_are_not_finite_is_mended_as_typed(terminal: Terminal) -> None:
    assert terminal.type(TEN).code == 0
    terminal.trainings.not_finite_above = 0.005
    asked = terminal.type(TEN.replace("10", "20"))
    said = re.search(r"with (--set train\.lr=\S+),", asked.text)
    assert asked.code == 1 and said, asked.text
    assert NOTHING in terminal.type(TEN).text
    outcome = terminal.type(f"{TEN.replace('10', '20')} {said[1]}")
    assert outcome.code == 0 and "starting from step 0 with train.lr" in outcome.text, outcome.text


def test_each_warning_of_a_training_is_printed_once(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    publish = publish_weights

    def warned(*arguments: Any, **options: Any) -> str:
        print("warning: the sky is low")
        return publish(*arguments, **{**options, "warnings": ["the sky is low"]})

    monkeypatch.setitem(Trainings.__call__.__globals__, "publish_weights", warned)
    for _ in range(2):
        assert terminal.type(TEN).text.count("the sky is low") == 1


# Messages of functions, whose remedies are settings.


def sets_in(text: str, pattern: str) -> list[list[str]]:
    """Return the alternatives that a text offers, each as pairs of key and value."""
    said = re.search(pattern, text)
    assert said, text
    pairs = re.compile(r"([a-z]+\.\w+) (?:= |to )(\S+?)[,;.]?(?=\s|$)")
    return [[f"{key}={value}" for key, value in pairs.findall(part)] for part in said[1].split(", or ")]


def test_a_batch_of_one_value_is_refused_with_two_remedies() -> None:
    sets = ["pretrain.per_batch_size=1", "pretrain.image_size=32"]
    with pytest.raises(InputError) as refused:
        check_batch_norm(load_config(sets=sets), "pretrain")
    remedies = sets_in(str(refused.value), r"; (set .+)$")
    assert len(remedies) == 2
    for pairs in remedies:
        check_batch_norm(load_config(sets=[*sets, *pairs]), "pretrain")


def test_pods_of_another_kind_are_refused_with_what_fits() -> None:
    pods = cluster_settings({"devices_per_node": 4, "nodes": 2})[1]["train"]
    config = load_config(sets=["train.processes=3"])
    patterns = {"set it to a multiple of (\\d+)": "train.processes={}", "; (set \\S+ to \\d+)$": "{}"}
    for pattern, template in patterns.items():
        with pytest.raises(InputError) as refused:
            pods.nodes_for(config.train.processes, "train.processes")
        said = re.search(pattern, str(refused.value))
        assert said, str(refused.value)
        pair = template.format(said[1]).removeprefix("set ").replace(" to ", "=")
        config = load_config(sets=[pair])
    assert pods.nodes_for(config.train.processes, "train.processes") == 2


def test_a_gate_names_the_key_that_lowers_it() -> None:
    numbers = {"AP": 0.5}
    with pytest.raises(WorkError) as refused:
        judge(numbers, 0.75).enforce("m")
    said = re.search(r"AP is ([\d.]+), below the gate (evaluate\.min_ap) = .*lower the gate", str(refused.value))
    assert said
    judge(numbers, load_config(sets=[f"{said[2]}={said[1]}"]).evaluate.min_ap).enforce("m")


MOSAIC = ("train.max_epoch=40", "augment.close_mosaic=40", "augment.mixup=0.5")


@pytest.mark.parametrize(
    ("sets", "pattern", "typed"),
    [
        (("train.max_epoch=5",), r"\(from (train\.max_epoch = \d+) on\)", "{}"),
        (("train.max_epoch=5",), r"leave out the warm-up with (.+ = 0)\.", "{}"),
        (
            ("train.max_epoch=9", "train.lr_scheduler=exponential", "train.warmup_epochs=0"),
            r"set train\.lr_epochs below (\d+)",
            "train.lr_epochs=[{below}]",
        ),
        (MOSAIC, r"set it below (\d+), or", "augment.close_mosaic={below}"),
        (MOSAIC, r"below 40, or (.+) if this", "{}"),
    ],
)
def test_what_a_warning_of_the_schedule_offers_ends_it(sets: tuple[str, ...], pattern: str, typed: str) -> None:
    def warnings(*pairs: str) -> list[str]:
        config = load_config("yolov5n-r7", sets=pairs)
        return schedule_warnings(config.train, config.augment, 10)

    (line,) = warnings(*sets)
    said = re.search(pattern, line)
    assert said, line
    below = int(said[1]) - 1 if said[1].isdecimal() else ""
    pairs = typed.format(said[1], below=below).replace(" = ", "=").split(" and ")
    assert warnings(*sets, *pairs) == []


@pytest.mark.parametrize(("epochs", "steps"), [(40, 100), (20, 900)])
def test_an_extension_that_adds_no_step_names_the_other_length(epochs: int, steps: int) -> None:
    per_epoch, lines = 5, list[str]()
    config = load_config(sets=[f"pretrain.max_epoch={epochs}", f"pretrain.max_steps={steps}"])
    identity = {"extended": [{"step": 100, "pretrain.max_epoch": 20}]}
    _warn_if_no_longer(identity, config, min(epochs * per_epoch, steps), per_epoch, lines.append)
    said = re.search(r"add --set (\S+)$", lines[0])
    assert said
    raised = load_config(sets=[f"pretrain.max_epoch={epochs}", f"pretrain.max_steps={steps}", said[1]]).pretrain
    assert min(raised.max_epoch * per_epoch, raised.max_steps) > 100
    _warn_if_no_longer(identity, config, 150, per_epoch, lines.append)
    assert len(lines) == 1


def test_nothing_is_found_in_a_store_that_cannot_be_read(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise InputError("away")

    monkeypatch.setattr("kubeyolo.steps.earlier_trainings.earlier_trainings", refuse)
    assert terminal.type("kubeyolo train D").code == 0


def test_checkpoints_of_an_output_are_kept_by_all_that_is_refused(terminal: Terminal) -> None:
    terminal.trainings.stops_at = 4
    assert terminal.type(TEN).code == 130
    for more in ("train.max_epoch=2", "train.max_epoch=5", "train.lr=0.5", "data.split_seed=1 --model yolov5s-r7"):
        assert terminal.type(f"{TEN} --set {more}").code == 2, more
    state = newest_checkpoint(Place.of("X").store, print)
    assert state is not None and state.step == 4

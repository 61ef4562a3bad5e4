"""Options as other programs call them: what the error says to type is taken by the command."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from kubeyolo.cli.errors import exit_code_of
from kubeyolo.cli.spelling import option_spelling
from kubeyolo.config.foreign_words import ABSENT, KEYS, MEANINGS
from kubeyolo.config.load import load_config
from tests.commands import COMMAND, all_commands

ARGUMENTS = {
    "run": ["--data", "d"],
    "validate": ["d"],
    "train": ["d"],
    "evaluate": ["b", "d"],
    "export": ["b", "d"],
    "predict": ["i.jpg"],
}
OF_TRAINING = {key for key in (key for keys in KEYS.values() for key in keys) if key.startswith(("train.", "augment."))}


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KUBEYOLO_CACHE", str(tmp_path / "cache"))

    def call(line: str) -> str:
        given = shlex.split(line)
        # As main does, with a command that is made once.
        code = exit_code_of(lambda: COMMAND.main(given, prog_name="kubeyolo", standalone_mode=False), given)
        assert code == 2
        (message,) = capsys.readouterr().err.strip().splitlines()
        return str(message)

    return call


def parsed(line: str) -> dict[str, Any]:
    """Parse a command line without running the command; the pairs of --set are loaded."""
    name, *arguments = shlex.split(line)
    values: dict[str, Any] = COMMAND.commands[name].make_context(name, arguments).params
    load_config(sets=values.get("sets") or ())
    return values


def check_remedy(message: str, command: str, option: str) -> bool:
    """Type what a message says; return whether it says anything."""
    said = re.fullmatch(rf"error: No such option: {option}(.*); see 'kubeyolo {command} --help'", message)
    assert said, message
    argument = re.search(r"it is an argument: kubeyolo ([^;]+)", said[1])
    used = re.search(r"use (--[^;]+)", said[1])
    if argument:
        parsed(argument[1])
    elif used:
        typed = used[1].partition(", with the bundle")[0]
        assert "VALUE" not in typed or "is not allowed" in said[1], message
        key = re.match(r"--set (\S+)=VALUE", typed)
        if key:
            section, _, name = key[1].partition(".")
            value = getattr(getattr(load_config(), section), name)
            text = str(list(value)) if isinstance(value, tuple) else str(value)
            typed = f"--set {shlex.quote(f'{key[1]}={text}')}"
        parsed(shlex.join([command, *ARGUMENTS[command]]) + " " + typed)
    return bool(argument or used)


@pytest.mark.parametrize("command", ARGUMENTS)
def test_what_is_said_of_each_word_is_taken_by_the_command(error_of: Any, command: str) -> None:
    spelled = option_spelling(command)
    options = {spelled(name.lstrip("-")) for each in all_commands()[command].params for name in each.opts}
    helped = set()
    for word in {**KEYS, **MEANINGS, **ABSENT}:
        option = f"--{word.replace('_', '-')}"
        if spelled(word) in options:
            continue
        message = error_of(shlex.join([command, *ARGUMENTS[command], option, "1"]))
        if check_remedy(message, command, option):
            helped.add(word)
    if command in ("train", "run"):
        trained = {word for word, keys in KEYS.items() if OF_TRAINING & {*keys}}
        assert helped >= {word for word in trained if spelled(word) not in options}
    assert not helped & set(ABSENT)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("train d --epochs 50", "use --set train.max_epoch=50"),
        ("train d --epochs=50", "use --set train.max_epoch=50"),
        ("train d --epochs", "use --set train.max_epoch=VALUE"),
        ("run --data d --epochs 50", "use --set train.max_epoch=50"),
        ("pretrain d --epochs 50", "use --set pretrain.max_epoch=50"),
        ("train d --img 640", "use --set train.image_size=640"),
        ("train d --img-size 640x640", "use --set train.image_size=640"),
        ("train d --imgsz 650", "use --set train.image_size=VALUE; train.image_size = 650 (from --set) is not allowed"),
        ("evaluate b d --imgsz 640", "use --set evaluate.image_size=640"),
        ("train d --batch-size 16", "use --set train.per_batch_size=16"),
        ("evaluate b d --batch-size 16", "use --set evaluate.per_batch_size=16"),
        ("train d --optim SGD", "use --set train.optimizer=sgd"),
        ("train d --adam", "use --set train.optimizer=adamw"),
        ("train d --img_size 640", "use --set train.image_size=640"),
        ("run --data d --training_shape 416", "use --set train.image_size=416"),
        ("train d --group_size 8", "use --set train.processes=8"),
        ("train d --data_dir coco", "it is an argument: kubeyolo train coco"),
        ("train d --ckpt_path outputs", "use --output outputs"),
        ("train d --yolov5_version yolov5m", "use --model yolov5m"),
        ("train d --resume_yolov4 b", "use --weights b"),
        ("evaluate d --ckpt_file b", "it is an argument: kubeyolo evaluate b DATASET"),
        ("evaluate b d --task test", "use --set evaluate.split=test"),
        ("run --data d --cache ram", "use --set data.cache=true"),
        ("run --data d --sync-bn", "use --set train.sync_bn=true"),
        ("train d --cos-lr", "use --set train.lr_scheduler=cosine_annealing"),
        ("train d --device cpu", "use --set train.device_target=CPU"),
        ("train d --device npu:0,1", "use --set train.device_target=Ascend --set train.processes=2"),
        ("evaluate b d --device cpu", "use --set evaluate.device_target=CPU"),
        ("export b d --device npu:0", "use --set export.device_target=Ascend"),
        *(
            (f"{command} --device {device}", f"GPUs are not supported: use --set {key}.device_target=CPU; with Ascend")
            for command, key in (("train d", "train"), ("pretrain d", "pretrain"), ("evaluate b d", "evaluate"))
            for device in ("0", "0,1", "cuda:0", "cuda")
        ),
        ("train d --data store/datasets/x", "it is an argument: kubeyolo train store/datasets/x"),
        ("train d --data coco.yaml", "it is an argument: kubeyolo train DATASET"),
        ("validate --data 'my data'", "it is an argument: kubeyolo validate 'my data'"),
        ("train d --cfg models/yolov5s.yaml", "use --model yolov5s"),
        ("train d --cfg cfg/other.yaml", "use --model NAME"),
        ("train d --hyp hyp.yaml", "use --config hyp.yaml"),
        ("train d --project runs/train", "use --output runs/train"),
        ("train d --name exp", "use --output exp"),
        ("run --data d --project runs", "use --runs runs"),
        ("train d --pretrained b", "use --weights b"),
        ("train d --ckpt yolov5s.pt", "use --weights yolov5s.pt"),
        ("run --data d --weight yolov5s.pt", "use --weights yolov5s.pt"),
        ("predict i.jpg --weights b", "use --bundle b"),
        (
            "predict i.jpg --weights best.pt",
            "use --bundle BUNDLE; 'kubeyolo weights import best.pt --model NAME --output BUNDLE' makes the bundle",
        ),
        ("evaluate --weights b", "it is an argument: kubeyolo evaluate b DATASET"),
        ("predict --source 'a b.jpg'", "it is an argument: kubeyolo predict 'a b.jpg'"),
        ("predict i.jpg --conf-thres 0.5", "use --conf 0.5"),
        ("predict i.jpg --iou-thres 0.5", "use --set predict.iou_threshold=0.5"),
        ("evaluate b d --conf-thres .3", "use --set evaluate.conf_threshold=.3"),
        ("export b d --include onnx", "use --set 'export.formats=[onnx]'"),
        ("train d --is_distributed 1", "a training has several processes if train.processes is larger than 1"),
        ("train d --rank 0", "processes get their ranks by themselves: leave it out"),
        ("train d --is-save-on-master 1", "the first process alone writes checkpoints: leave it out"),
        ("run --data d --resize_rate 10", "use --set train.resize_rate=10"),
        ("run --data d --multi-scale", "use --set train.multi_scale=true"),
        ("evaluate b d --augment", "test-time augmentation is the option --tta"),
        ("evaluate b d --save-json", "detections.json is always written, in the format of COCO results: leave it out"),
        ("train d --amp", "set train.precision to float16; on Ascend it is the default: leave it out"),
        ("train d --ms_loss_scaler static", "use --set train.grad_scaler=static"),
        ("train d --resume", "run the same command again to continue an interrupted training: leave it out"),
    ],
)
def test_the_remedy_has_the_value_that_was_given(error_of: Any, line: str, remedy: str) -> None:
    message = error_of(line)
    command = line.split()[0]
    option = re.findall(r"--[\w-]+", line.partition(" --data d ")[2] or line)[0].replace("_", "-")
    assert f"; {remedy}" in message or f" {remedy}" in message
    if command in ARGUMENTS and "VALUE" not in remedy:
        check_remedy(message, command, option)


@pytest.mark.parametrize("line", ["predict i.jpg --epochs 3", "predict i.jpg --imgsz 640", "models list --epochs 3"])
def test_nothing_is_said_of_an_option_that_the_command_has_no_setting_for(error_of: Any, line: str) -> None:
    assert re.fullmatch(r"error: No such option: --\w+; see 'kubeyolo [a-z ]+ --help'", error_of(line))


@pytest.mark.parametrize("line", ["predict i.jpg --weights y.pt", "export d --weights y.pt"])
def test_the_command_that_makes_a_bundle_of_a_file_of_weights_is_complete(error_of: Any, line: str) -> None:
    typed = re.search(r"'kubeyolo weights import ([^']+)'", error_of(line))
    assert typed
    values = COMMAND.commands["weights"].commands["import"].make_context("import", shlex.split(typed[1])).params
    assert (str(values["file"]), values["backbone"]) == ("y.pt", False)


def test_the_parser_still_names_the_nearest_option(error_of: Any) -> None:
    assert "(Possible options: --data" in error_of("run --dta x")

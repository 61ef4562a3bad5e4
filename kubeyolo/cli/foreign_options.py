"""What to type instead of an option of another program: a setting, an option or an argument of the command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Container, Sequence

from kubeyolo.catalogue import STEPS
from kubeyolo.cli.setting_options import ON_BUNDLES, STEP_OF
from kubeyolo.config.foreign_words import ABSENT, ABSENT_IN_EVALUATION, KEYS, MEANINGS, plain_word
from kubeyolo.config.load import known_keys, load_config, preset_names
from kubeyolo.errors import InputError

_WHOLE = ("run", "configure", "pipeline show", "pipeline submit")
"""Commands that take the settings of all steps."""

_STEP_OF = {"validate": "validate_dataset", "convert": "validate_dataset", **STEP_OF}

_STARTING = ("train", "run", "configure")
"""Commands with the option --weights."""

_PLACES = {
    ("predict", "bundle"): "--bundle {}",
    ("predict", "images"): "kubeyolo predict {}",
    ("train", "data"): "kubeyolo train {}",
    ("pretrain", "data"): "kubeyolo pretrain {}",
    ("validate", "data"): "kubeyolo validate {}",
    ("convert", "data"): "kubeyolo convert {} OUT",
    **{(command, "bundle"): f"kubeyolo {command} {{}} DATASET" for command in ON_BUNDLES},
    **{(command, "data"): f"kubeyolo {command} BUNDLE {{}}" for command in ON_BUNDLES},
    **{(command, "model"): "--model {}" for command in ("train", "pretrain", *_WHOLE)},
    **{(command, "config"): "--config {}" for command in (*_STEP_OF, "predict", *_WHOLE)},
    **{
        (command, meaning): "--output {}"
        for command in ("train", "pretrain", "predict", *ON_BUNDLES)
        for meaning in ("output", "name")
    },
    ("run", "output"): "--runs {}",
}
"""What to type, by command and by the meaning of an option in another program."""

_WEIGHTS_FILE = re.compile(r"\.(pt|pth|ckpt|weights|safetensors)$")
"""Files from which 'kubeyolo weights import' makes a bundle."""

_PAIR = re.compile(r"[A-Za-z][\w.-]*=")

_DEVICES = {"cpu": "CPU", "npu": "Ascend", "ascend": "Ascend"}
_GPUS = ("gpu", "cuda", "mps", "xpu")


def remedy(option: str, command: str, arguments: Sequence[str]) -> str | None:
    """Return a hint what to type instead of an unknown option, as the end of an error message.

    Return an empty text if the command has no equivalent of this option, and None for an unknown word.

    Args:
        option: The option as the parser reports it: ``-i`` for ``-img``.
        command: Name of the command, without ``kubeyolo``.
        arguments: The command line, from which the value of the option is taken.
    """
    option = _whole_option(option, arguments)
    word = plain_word(option)
    value = _value_of(option, arguments)
    meaning = "output" if word == "ckpt_path" and command in ("train", "pretrain") else MEANINGS.get(word, "")
    if meaning == "bundle" and command in ("train", *_WHOLE):
        return _on_start(command, value)
    if (command, meaning) in _PLACES:
        return _placed(command, meaning, value)
    if word in ABSENT and command in ("train", *_WHOLE):
        return f"; {ABSENT[word]}"
    if word in ABSENT_IN_EVALUATION and command == "evaluate":
        return f"; {ABSENT_IN_EVALUATION[word]}"
    key = _key_of(word, command)
    if key == "predict.conf_threshold":
        return f"; use --conf {value or 'VALUE'}"
    if key:
        return _as_setting(key, word, value)
    return "" if word in KEYS or word in MEANINGS or word in ABSENT else None


def remedy_for_pairs(command: str, arguments: Sequence[str], options: Container[str]) -> str:
    """Return a hint what to type instead of arguments such as ``epochs=50``; empty if there are no such arguments.

    Args:
        command: Name of the command, without ``kubeyolo``.
        arguments: The command line.
        options: The options that the command has.
    """
    before = ["", *arguments]
    pairs = [
        argument
        for last, argument in zip(before, arguments, strict=False)
        if _PAIR.match(argument) and (not last.startswith("-") or "=" in last)
    ]
    if command not in (*_STEP_OF, *_WHOLE, "predict"):
        return ""
    found = dict.fromkeys(_remedy_for_pair(pair, command, options) for pair in pairs)
    # Options without a further remark are joined into one hint.
    options_alone = [each for each in found if each.startswith("; use --") and ";" not in each[1:]]
    typed = [each.removeprefix("; use ") for each in options_alone]
    others = [each for each in found if each not in options_alone]
    return (f"; use {' '.join(typed)}" if typed else "") + "".join(others)


def _remedy_for_pair(pair: str, command: str, options: Container[str]) -> str:
    name, _, value = pair.partition("=")
    dashed = f"--{name.replace('_', '-')}"
    option = dashed if dashed in options else f"--{name.replace('-', '_')}"
    if name in known_keys() and "." in name:
        return f"; use --set {shlex.quote(pair)}"
    if option in options and not _WEIGHTS_FILE.search(value):
        return f"; use {option} {shlex.quote(value)}"
    found = remedy(option, command, [f"{option}={value}"]) or ""
    return found.replace("; it is an argument", f"; {name} is an argument")


def _whole_option(option: str, arguments: Sequence[str]) -> str:
    """Return an option as it was typed: after a single dash the parser reads only one letter."""
    if option.startswith("--"):
        return option
    return next((each.partition("=")[0] for each in arguments if each.startswith(option)), option)


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return the value that was typed for an option, or None if it has no value."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if not name.startswith("-") or plain_word(name) != plain_word(option):
            continue
        following = value if equals else next(iter(arguments[at + 1 :]), "")
        return following if following and not re.match(r"-\D", following) else None
    return None


def _on_start(command: str, value: str | None) -> str:
    """Return a hint how a training starts from the weights of a detector."""
    text = shlex.quote(value) if value else "URI"
    return f"; use --weights {text}" if command in _STARTING else f"; use --set train.weights={text}"


def _placed(command: str, meaning: str, value: str | None) -> str:
    """Return a hint with the matching option or argument of the command, and the typed value if it is valid there."""
    text, note = shlex.quote(value) if value else "", ""
    if meaning == "model":
        text = _preset_of(value or "")
    elif meaning == "bundle" and _WEIGHTS_FILE.search(value or ""):
        text, note = "", f"; 'kubeyolo weights import {text} --model NAME --output BUNDLE' makes the bundle"
    elif meaning == "data" and command not in ("validate", "convert"):
        text = "" if re.search(r"\.(ya?ml|json|data)$", value or "") else text
        note = "; DATASET is the URI that 'kubeyolo validate' prints"
    typed = _PLACES[command, meaning].format(text or _name_of(command, meaning))
    return f"; {'it is an argument:' if typed.startswith('kubeyolo') else 'use'} {typed}{note}"


def _name_of(command: str, meaning: str) -> str:
    names = {"bundle": "BUNDLE", "images": "IMAGE", "model": "NAME", "config": "FILE", "output": "URI"}
    return names.get(meaning, "DATA" if command in ("validate", "convert") else "DATASET")


def _preset_of(value: str) -> str:
    """Return the model that a file name from another program contains (models/yolov5s.yaml); empty if there is none."""
    stem = re.split(r"[/\\]", value)[-1].rpartition(".")[0] or value
    return next((name for name in (stem, f"{stem}-r7") if name in preset_names()), "")


def _key_of(word: str, command: str) -> str:
    """Return the configuration key for an option of another program, if the command reads that key; otherwise empty."""
    keys = KEYS.get(word) or [key for key in known_keys() if key.rpartition(".")[2] == word]
    if command == "predict":
        reads: tuple[str, ...] = ("predict",)
    elif command in _WHOLE:
        reads = ("train", *(each for step in STEPS.values() for each in step.reads))
    else:
        reads = STEPS[_STEP_OF[command]].reads if command in _STEP_OF else ()
    return next((key for each in reads for key in keys if each in (key, key.partition(".")[0])), "")


def _as_setting(key: str, word: str, value: str | None) -> str:
    """Return a hint with the pair that sets a key to the typed value, or with the allowed values of the key."""
    if key.endswith(".device_target") and _is_gpu(value):
        return f"; GPUs are not supported: use --set {key}=CPU; with Ascend cards, set it to Ascend"
    text = _translated(key, word, value)
    if text is None:
        return f"; use --set {key}=VALUE"
    pair = f"{key}={text}"
    try:
        load_config(sets=[pair])
    except InputError as error:
        return f"; use --set {key}=VALUE; {error}"
    devices = len((value or "").split(","))
    more = f" --set train.processes={devices}" if key == "train.device_target" and devices > 1 else ""
    return f"; use --set {shlex.quote(pair)}{more}"


def _is_gpu(value: str | None) -> bool:
    """Tell whether a value for another program names GPUs: ``cuda:0``, or numbers alone."""
    kind = _kind_of_device(value or "")
    return kind.isdecimal() or kind in _GPUS


def _kind_of_device(value: str) -> str:
    return re.split(r"[:,]", value.lower())[0]


def _translated(key: str, word: str, value: str | None) -> str | None:
    """Convert a value from another program to a value for the key."""
    if word == "cos_lr":
        return "cosine_annealing"
    if word == "adam":
        return "adamw"
    if key in ("data.cache", "train.nesterov", "train.multi_scale", "train.sync_bn"):
        return "true" if value in (None, "ram", "disk", "True") else value
    if value is None:
        return None
    if key.endswith(".device_target"):
        return _DEVICES.get(_kind_of_device(value), value)
    if key == "train.lr_scheduler":
        return {"cos": "cosine_annealing", "cosine": "cosine_annealing"}.get(value.lower(), value)
    if key == "train.optimizer":
        return value.lower()
    if key == "export.formats":
        return value if value.startswith("[") else f"[{value}]"
    if key.endswith(".image_size"):
        return re.sub(r"^(\d+)[x,]\1$", r"\1", value)
    return value

"""An option for each setting: what it shows in the help, and what it sets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from kubeyolo.catalogue import STEPS
from kubeyolo.cli import predict, steps
from kubeyolo.cli.app import main
from kubeyolo.cli.setting_options import STEP_OF, merged_sets, setting_keys
from kubeyolo.config.key_types import key_types
from kubeyolo.config.load import load_config, mapping_keys, preset
from kubeyolo.errors import InputError
from tests.alone import run_alone
from tests.commands import COMMAND

PANEL = re.compile(r"╭─ (.+?) ─+╮\n(.*?)╰─", re.DOTALL)
ROW = re.compile(r"│\s+(--[\w-]+)(?=\s)")


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    monkeypatch.setenv("COLUMNS", "400")

    def call(line: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(line))
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        return str(out)

    return call


@pytest.fixture
def sets_of_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Return the pairs of --set that a command receives."""

    def call(line: str) -> list[str]:
        found: list[str] = []

        class Stop(InputError):
            pass

        def resolved(model: str | None, file: Any, sets: tuple[str, ...]) -> Any:
            found.extend(sets)
            raise Stop("stop here")

        monkeypatch.setattr(steps, "load_resolved", resolved)
        monkeypatch.setattr(steps, "load_config", resolved)
        monkeypatch.setattr(predict, "load_config", resolved)
        with pytest.raises(SystemExit):
            main(shlex.split(line))
        return found

    return call


def options(text: str) -> dict[str, str]:
    """Return the row of each option in a printed help."""
    return {name[1]: line for line in text.splitlines() if (name := ROW.match(line))}


FLAGS = {
    ("evaluate", "evaluate.test_dev"): "COCO's test-dev server",
    ("train", "train.sync_bn"): "train as one process with the images of all",
}
"""Options without a value, with a part of their help."""


@pytest.mark.parametrize("command", STEP_OF)
def test_every_key_that_a_command_reads_has_an_option_with_range_and_default(
    printed: Callable[[str], str], command: str
) -> None:
    rows = options(printed(f"{command} --model yolov4 --help" if command in ("train", "pretrain") else f"{command} -h"))
    reads = STEPS[STEP_OF[command]].reads
    keys = {key for key in key_types() if {key, key.partition(".")[0]} & {*reads}} - {*mapping_keys()}
    names = {key.rpartition(".")[2] for key in keys}
    assert names and {name.lstrip("-") for name in rows} >= names
    values = preset("yolov4")
    for name, key in setting_keys(command).items():
        if key == "train.weights":
            assert "Detector to start from" in rows["--weights"], "several commands share this option"
            continue
        if (command, key) in FLAGS:
            assert FLAGS[command, key] in rows[f"--{name}"]
            continue
        row, each = rows[f"--{name}"], key_types()[key]
        assert each.schema["description"].partition("[")[0] in row, key
        assert each.range in row
        if command in ("train", "pretrain"):
            default = values.get(key, each.default)
            text = {"[]": "empty", "": "empty", "True": "true", "False": "false"}
            assert f"default {text.get(str(default), default)}]" in row, row


def test_settings_are_in_the_bands_of_the_preset_and_have_the_defaults_of_the_chosen_model(
    printed: Callable[[str], str],
) -> None:
    panels = {title: options(body) for title, body in PANEL.findall(printed("train --help"))}
    often, sometimes, alone = (panels[title] for title in panels if title.startswith("Settings"))
    assert "--max_epoch" in often and "--lr_scheduler" in sometimes and "--momentum" in alone
    assert "default 1.0]" in alone["--loss_scale"] and "default linear]" in sometimes["--lr_scheduler"]
    for model, divisor in (("yolov4", "64.0"), ("yolov3-quant", "1024.0")):
        rows = options(printed(f"train --help --model={model}"))
        assert f"default {divisor}]" in rows["--loss_scale"] and "default exponential]" in rows["--lr_scheduler"]


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("train d --lr 0.012 --t_max 320", ["train.lr=0.012", "train.t_max=320"]),
        (
            "train d --t-max=320 --lr-scheduler cosine_annealing",
            ["train.lr_scheduler=cosine_annealing", "train.t_max=320"],
        ),
        ("train d --lr_epochs 220,250 --label_smooth 1", ["train.label_smooth=1", "train.lr_epochs=220,250"]),
        ("train d --freeze '*.bias' --recipe scratch", ["recipe=scratch", "train.freeze=*.bias"]),
        (
            "train d --training_shape 416 --mosaic 0",
            ["augment.mosaic=0", "train.image_size=416", "train.multi_scale=false"],
        ),
        ("train d --multi_scale 1 --resize_rate 10", ["train.multi_scale=1", "train.resize_rate=10"]),
        (
            "train --multi-scale --sizes 416,608 d --resize-rate=1",
            ["train.multi_scale=true", "train.resize_rate=1", "train.sizes=416,608"],
        ),
        ("train d --multi-scale=false", ["train.multi_scale=false"]),
        ("train d --set train.seed=3 --workers 0", ["data.workers=0", "train.seed=3"]),
        ("train d --set train.lr=0.10 --lr 0.1 --lr 1e-1", ["train.lr=0.10"]),
        ("train d --sync-bn --lr 0.1", ["train.lr=0.1", "train.sync_bn=true"]),
        ("pretrain d --max_epoch 3 --seed 1", ["pretrain.max_epoch=3", "train.seed=1"]),
        ("export b d --batch_size 4 --formats onnx", ["export.batch_size=4", "export.formats=onnx"]),
        ("evaluate b d --testing_shape 608 --split test", ["evaluate.image_size=608", "evaluate.split=test"]),
        ("quantize b d --calibration_images 8", ["quantize.calibration_images=8"]),
        ("train d --pretrained_backbone b --set train.lr=1", ["train.lr=1"]),
        ("evaluate b d --tta --nms diou", ["evaluate.nms=diou", "evaluate.tta=true"]),
        ("evaluate b d --no-tta --rect", ["evaluate.rect=true", "evaluate.tta=false"]),
        ("evaluate b d", []),
        ("predict i.jpg --tta", ["predict.tta=true"]),
    ],
)
def test_an_option_is_a_pair_with_underscores_and_dashes_alike(
    sets_of_call: Callable[[str], list[str]], line: str, pairs: list[str]
) -> None:
    found = sets_of_call(line)
    assert sorted(found) == pairs
    load_config(sets=found)


def test_other_options_have_both_spellings_too() -> None:
    line = ["d", "--pretrained_backbone", "b", "--cluster_set", "x=1"]
    values = COMMAND.commands["train"].make_context("train", line).params
    assert (values["backbone"], values["cluster_sets"]) == ("b", ["x=1"])
    line = ["list", "--as_json"]
    with pytest.raises(Exception, match="No such option: --as-json"):
        COMMAND.commands["models"].commands["list"].make_context("list", line)


def test_lists_are_read_without_brackets() -> None:
    config = load_config(sets=["train.lr_epochs=220,250", "export.formats=onnx, mindir", "data.levels=0,4095"])
    assert config.train.lr_epochs == (220, 250) and config.data.levels == (0.0, 4095.0)
    assert config.export.formats == ("mindir", "onnx")
    assert load_config(sets=["train.lr_epochs=92"]).train.lr_epochs == (92,)
    for wrong in ("train.lr_epochs=a,b", "export.formats=onnx;air", "data.levels=1", "train.lr_epochs=true"):
        with pytest.raises(InputError, match="is not allowed"):
            load_config(sets=[wrong])


def test_patterns_are_split_at_commas_and_may_start_with_a_star() -> None:
    for text, patterns in {
        "backbone,neck.*": ("backbone", "neck.*"),
        "*.bias": ("*.bias",),
        "*.bias, neck.*": ("*.bias", "neck.*"),
        '["*.bias"]': ("*.bias",),
        "": (),
    }.items():
        pairs = merged_sets([], {"freeze": [text]}, setting_keys("train"))
        assert load_config(sets=pairs).train.freeze == patterns
    for wrong in ("train.freeze=[*.bias]", "train.lr=*.bias", "train={freeze: *bias}"):
        with pytest.raises(
            InputError, match=r"anchors and aliases \(& and \*\) are not supported .*; put text in quotes"
        ):
            load_config(sets=[wrong])


def test_only_a_command_that_resolves_the_recipe_has_an_option_for_it() -> None:
    assert [command for command in STEP_OF if "recipe" in setting_keys(command)] == ["train"]
    with pytest.raises(InputError, match="recipe is given twice: 'finetune' by --set recipe, and 'scratch' by --rec"):
        merged_sets(["recipe=finetune"], {"recipe": ["scratch"]}, setting_keys("train"))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"lr": ["0.1", "0.2"]}, "train.lr is given twice: 0.1 by --lr, and 0.2 by --lr; leave one of them out"),
        ({"seed": ["2"]}, "train.seed is given twice: 1 by --set train.seed, and 2 by --seed; leave one of them out"),
        ({"lr": ["fast"]}, r"train.lr = 'fast' (from --lr) is not allowed: expected a number > 0 (Peak learning rate)"),
        ({"max_epoch": ["0"]}, "train.max_epoch = 0 (from --max_epoch) is not allowed: expected a whole number >= 1"),
    ],
)
def test_values_that_differ_or_are_not_allowed_are_refused_by_the_option(
    typed: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        merged_sets(["train.seed=1"], typed, setting_keys("train"))


def test_help_does_not_import_the_steps() -> None:
    code = """
import contextlib, io, sys, time
from kubeyolo.cli.app import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main(["train", "--help"])
heavy = [name for name in ("numpy", "cv2", "kubeyolo.bundle", "kubeyolo.training") if name in sys.modules]
print(heavy, round(time.process_time(), 2))
"""
    heavy, _, seconds = run_alone(code).rpartition(" ")
    assert heavy == "[]"
    # It takes 0.6 s on an idle machine.
    assert float(seconds) < 1.5

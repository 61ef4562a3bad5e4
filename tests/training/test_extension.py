"""A training is made longer in its output, and nothing that is done is lost or taken for something else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kubeyolo.config.load import load_config, load_resolved, preset_names
from kubeyolo.config.recipes import with_recipe
from kubeyolo.config.schema import Config
from kubeyolo.config.training_schema import TrainConfig
from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import TrainingState, newest_checkpoint, write_checkpoint
from kubeyolo.training.extension import (
    PARTNER_WINDOW,
    REDISTRIBUTED,
    changed_keys,
    continued_identity,
    extension_lines,
    is_longer,
    is_redistributed,
    is_shorter,
)
from kubeyolo.training.output import is_complete, state_to_continue
from kubeyolo.training.result import RESULT_NAME, TrainingResult
from kubeyolo.training.spec import TrainingSpec, refuse_changes, training_identity

SPEC = TrainingSpec(dataset="d", output="o", config=Config(model="yolov5n-r7"))
TEN = {"dataset": "d", "train.lr": 0.1, "train.max_epoch": 10}
TWENTY = {**TEN, "train.max_epoch": 20}
FORTY = {**TEN, "train.max_epoch": 40}


def test_a_length_that_grows_alone_is_an_extension() -> None:
    assert is_longer(TEN, TWENTY) and not is_longer(TWENTY, TEN) and not is_longer(TEN, TEN)
    assert is_shorter(TWENTY, TEN) and not is_shorter(TEN, TWENTY)
    assert not is_longer(TEN, {**TWENTY, "train.lr": 0.2}) and not is_shorter(TWENTY, {**TEN, "train.lr": 0.2})
    two = {"pretrain.max_epoch": 20, "pretrain.max_steps": 1000}
    assert is_longer(two, {**two, "pretrain.max_steps": 2000})
    mixed = {"pretrain.max_epoch": 40, "pretrain.max_steps": 500}
    assert not is_longer(two, mixed) and is_shorter(two, mixed)


def test_a_setting_that_a_saved_identity_lacks_had_its_default() -> None:
    usual, other = {**TEN, "train.nesterov": True}, {**TEN, "train.nesterov": False}
    assert changed_keys(TEN, usual) == [] and changed_keys(TEN, other) == ["train.nesterov"]
    assert changed_keys({**TEN, "train.lr_epochs": [220, 250]}, TEN) == []
    assert changed_keys(TEN, {**TEN, "dataset": "e"}) == ["dataset"]


def processes(count: int, images: int) -> dict[str, Any]:
    return {**TEN, "task": "detector", "train.processes": count, "train.per_batch_size": images}


def test_other_processes_with_the_same_images_in_a_step_are_no_change() -> None:
    one, two, four = processes(1, 8), processes(2, 4), processes(4, 4)
    assert changed_keys(one, two) == [] and is_redistributed(one, two)
    assert changed_keys(one, four) == ["train.per_batch_size", "train.processes"]
    assert not is_redistributed(one, four) and not is_redistributed(one, one)
    # One process has the statistics of all images; between several processes the setting decides.
    shared = {**two, "train.sync_bn": True}
    assert changed_keys(one, shared) == changed_keys(shared, one) == []
    assert changed_keys(two, shared) == ["train.sync_bn"]
    # Only the number of images stays; another setting is still a change, and a length may grow at the same time.
    assert changed_keys(one, {**two, "train.lr": 0.2}) == ["train.lr"]
    assert is_longer(one, {**two, "train.max_epoch": 20})


def test_each_change_of_the_processes_is_recorded_with_its_step() -> None:
    two = continued_identity(processes(1, 8), processes(2, 4), 60)
    again = continued_identity(two, processes(1, 8), 100)
    assert two[REDISTRIBUTED] == [{"step": 60, "train.processes": 1, "train.per_batch_size": 8}]
    assert again[REDISTRIBUTED][1:] == [{"step": 100, "train.processes": 2, "train.per_batch_size": 4}]
    assert changed_keys(two, again) == [] and again["train.processes"] == 1
    assert continued_identity(two, processes(2, 4), 80) == two


@pytest.mark.parametrize(
    ("now", "remedy"),
    [
        (processes(2, 8), "use --set train.per_batch_size=4 to resume with 2 processes"),
        (processes(3, 8), "use a number of processes that divides 8, or --set train.processes=1 --set train.per_batch"),
    ],
)
def test_processes_with_other_images_in_a_step_are_refused_with_a_remedy(now: dict[str, Any], remedy: str) -> None:
    with pytest.raises(InputError) as refused:
        refuse_changes(processes(1, 8), now, "o")
    message = str(refused.value)
    assert f"started with 1 process of 8 images, now it has {now['train.processes']} processes of 8 images" in message
    assert remedy in message


def test_a_training_continues_with_other_processes_in_its_output(tmp_path: Path) -> None:
    checkpoint(tmp_path, processes(1, 8), 60)
    lines: list[str] = []
    state = state_to_continue(Place.of(tmp_path).store, processes(2, 4), SPEC, True, lines.append)
    assert state is not None and state.step == 60
    assert state.identity == continued_identity(processes(1, 8), processes(2, 4), 60)
    assert any("with 2 processes of 4 images, before with 1 process of 8 images" in line for line in lines)


def test_an_identity_has_what_changes_the_validations_and_not_what_they_do_without() -> None:
    def identity(*sets: str) -> dict[str, Any]:
        config = load_config("yolov5n-r7", sets=["train.keep=best", *sets])
        return training_identity(TrainingSpec(dataset="d", output="o", config=config), "digest", "", 1)

    usual = identity()
    earlier = {key: value for key, value in usual.items() if key != "evaluate.nms"}
    assert "evaluate.nms" in usual and changed_keys(earlier, usual) == []
    assert changed_keys(earlier, identity("evaluate.nms=diou")) == ["evaluate.nms"]
    assert changed_keys(usual, identity("evaluate.tta=true", "evaluate.rect=true")) == []


def test_each_extension_is_told_with_both_lengths() -> None:
    once = continued_identity(TEN, TWENTY, 60)
    twice = continued_identity(once, FORTY, 100)
    assert changed_keys(once, TWENTY) == [] and continued_identity(once, TWENTY, 80) == once
    assert extension_lines(twice) == ["from 10 to 20 epochs at step 60", "from 20 to 40 epochs at step 100"]
    assert continued_identity(TEN, TEN, 3) == TEN and extension_lines(TEN) == []


def checkpoint(folder: Path, identity: dict[str, Any], step: int = 60) -> Any:
    store = Place.of(folder).store
    write_checkpoint(store, TrainingState(step=step, identity=identity, weights={"w": np.ones(1, np.float32)}))
    return store


def test_an_unfinished_training_is_extended_and_resumed_with_one_command(tmp_path: Path) -> None:
    store, lines = checkpoint(tmp_path, TEN, 31), list[str]()
    state = state_to_continue(store, TWENTY, SPEC, True, lines.append)
    assert state is not None and extension_lines(state.identity) == ["from 10 to 20 epochs at step 31"]
    assert [line for line in lines if line.startswith("extending from 10 to 20 epochs at step 31")]
    assert b'"kind":"extended"' in state.history
    state.step = 45
    write_checkpoint(store, state)
    lines.clear()
    again = state_to_continue(store, TWENTY, SPEC, True, lines.append)
    assert again is not None and again.identity == state.identity and again.history == state.history
    assert not [line for line in lines if "extending" in line]
    # The first command says what is there, and destroys nothing.
    with pytest.raises(InputError, match=r"train\.max_epoch = 20, now it is 10: .*use --set train\.max_epoch=20, or"):
        state_to_continue(store, TEN, SPEC, True, print)
    back = newest_checkpoint(store, print)
    assert back is not None and back.step == 45


def test_a_shorter_training_is_refused(tmp_path: Path) -> None:
    store = checkpoint(tmp_path, TWENTY, 31)
    with pytest.raises(InputError, match=r"now it is 10: it cannot be made shorter"):
        state_to_continue(store, TEN, SPEC, True, print)


def test_what_changed_besides_the_length_is_named_with_what_to_type() -> None:
    with pytest.raises(InputError, match=r"started with train\.lr = 0\.1, now it is 0\.2; .*--set train\.lr=0\.1\)"):
        refuse_changes(TEN, {**TWENTY, "train.lr": 0.2}, "place")


def typed_remedy(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the pairs that the message about a changed training offers."""
    with pytest.raises(InputError) as refused:
        refuse_changes(saved, now, "place")
    return re.findall(r"--set ([\w.]+=[^\s)]+)", str(refused.value))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ("label_smooth=on",)),
        ((), ("label_smooth_factor=0.2",)),
        (("label_smooth=on",), ()),
        (("label_smooth_factor=0.2",), ("label_smooth=off",)),
    ],
)
def test_the_remedy_restores_smoothing_whatever_else_is_set(before: tuple[str, ...], after: tuple[str, ...]) -> None:
    saved, sets = identity_of("yolov4", *(f"train.{each}" for each in before)), [f"train.{each}" for each in after]
    remedy = typed_remedy(saved, identity_of("yolov4", *sets))
    assert remedy and changed_keys(saved, identity_of("yolov4", *sets, *remedy)) == []


@pytest.mark.parametrize("model", ["yolov5n-r7", "yolov4-csp", "yolov4"])
def test_another_recipe_is_named_with_what_resumes_the_training(model: str) -> None:
    for former, other in (("scratch", "finetune"), ("finetune", "scratch")):
        saved, sets = identity_of(model, f"recipe={former}"), [f"recipe={other}"]
        remedy = typed_remedy(saved, identity_of(model, *sets))
        # The recipe of darknet is a single value, which may have been typed.
        assert remedy == [f"recipe={former}"] or (model == "yolov4" and "train.lr=" in remedy[0])
        assert changed_keys(saved, identity_of(model, *sets, *remedy)) == []
    saved = identity_of(model, "recipe=scratch")
    with pytest.raises(InputError, match=r"was started with augment\.\w+ = |was started with train\.lr = "):
        refuse_changes(saved, identity_of(model, "recipe=finetune", "train.lr=0.5"), "place")


def test_another_start_is_named_before_its_recipe() -> None:
    usual, tuned = identity_of("yolov5n-r7"), identity_of("yolov5n-r7", "recipe=finetune")
    for saved, now, words in (
        (usual, {**tuned, "weights": "a"}, "was started without train.weights; leave the weights out to resume"),
        ({**tuned, "weights": "a"}, usual, "was started from a detector, now it is not; set train.weights to this"),
        ({**usual, "weights": "a"}, {**usual, "weights": "b"}, "was started from another detector; set train.weights"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            refuse_changes(saved, now, "place")
    with pytest.raises(InputError, match=r"was started with model = .*--model yolov5n-r7"):
        refuse_changes(usual, {**identity_of("yolov4"), "weights": "a"}, "place")


NEW_KEYS = {"train.eta_min", "train.t_max", "train.warmup", "train.loss_scale", "train.label_smooth"}
NEW_KEYS |= {"train.precision", "train.grad_scaler", "train.grad_scaler_value"}
"""Keys that trainings of the version before did not have."""


def identity_of(model: str, *sets: str) -> dict[str, Any]:
    config = with_recipe(load_resolved(model, sets=list(sets)), from_detector=False).config
    spec = TrainingSpec(dataset="d", output="o", config=config)
    return training_identity(spec, "digest", "", 1)


@pytest.mark.parametrize("model", preset_names())
def test_a_training_of_the_version_before_is_continued_with_its_preset(model: str) -> None:
    now = identity_of(model)
    before = {key: value for key, value in now.items() if key not in NEW_KEYS}
    assert changed_keys(before, now) == [] and before["train.label_smooth_factor"] == 0.0
    # With other values too, if they meant the same.
    same = identity_of(model, "train.loss_scale=0", "train.label_smooth=false", "train.label_smooth_factor=0.1")
    assert changed_keys(before, same) == []
    linear = identity_of(model, "train.lr_scheduler=linear", "train.t_max=7", "train.eta_min=0.001")
    assert changed_keys(before, linear) in ([], ["train.lr_scheduler"])
    smoothed = {**before, "train.label_smooth_factor": 0.1}
    assert changed_keys(smoothed, identity_of(model, "train.label_smooth_factor=0.1")) == []


def test_what_smooths_targets_is_one_fact() -> None:
    factors = {
        (): 0.0,
        ("label_smooth_factor=0.2",): 0.2,
        ("label_smooth=true",): 0.1,
        ("label_smooth=1", "label_smooth_factor=0.2"): 0.2,
        ("label_smooth=0", "label_smooth_factor=0.2"): 0.0,
        ("label_smooth=off", "label_smooth_factor=0.2"): 0.0,
        ("label_smooth=on",): 0.1,
        ("label_smooth=auto", "label_smooth_factor=0.2"): 0.2,
    }
    for sets, factor in factors.items():
        assert identity_of("yolov4", *(f"train.{each}" for each in sets))["train.label_smooth_factor"] == factor, sets
    for wrong in ("2", "0.5", "some", "[1]"):
        with pytest.raises(InputError, match=r"train\.label_smooth = .* is not allowed: expected one of auto, on, off"):
            load_config(sets=[f"train.label_smooth={wrong}"])


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (("loss_scale=32",), "train.loss_scale"),
        (("warmup=zero", "warmup_epochs=1"), "train.warmup"),
        (("lr_scheduler=cosine_annealing", "t_max=100"), "train.t_max"),
        (("lr_scheduler=cosine_annealing", "t_max=300", "eta_min=0.001"), "train.eta_min"),
    ],
)
def test_a_setting_with_an_effect_belongs_to_the_training(sets: tuple[str, ...], key: str) -> None:
    with_it = identity_of("yolov5n-r7", *(f"train.{each}" for each in sets))
    before = {name: value for name, value in with_it.items() if name != key}
    assert changed_keys(before, with_it) == [key]
    # What to type instead is the value that the training had before there was the key.
    default = TrainConfig().model_dump()[key.partition(".")[2]]
    # The divisor is no setting that earlier versions lacked: it is left out where it is the model's own.
    remedy = f"set it back (--set {key}={default}) to" if key == "train.loss_scale" else f"use --set {key}={default} to"
    with pytest.raises(InputError, match=rf"{key} = {default!r}, now .*{re.escape(remedy)} resume"):
        refuse_changes(before, with_it, "place")


@pytest.mark.parametrize(
    ("sets", "values"),
    [
        ((), ("float32", "none", None)),
        (("device_target=Ascend",), ("float16", "dynamic", 65536.0)),
        (("device_target=Ascend", "precision=bfloat16"), ("bfloat16", "none", None)),
        (("device_target=Ascend", "precision=float32", "grad_scaler_value=2"), ("float32", "none", None)),
        (("precision=float16",), ("float16", "dynamic", 65536.0)),
        (("precision=float16", "grad_scaler=none"), ("float16", "none", None)),
        (("grad_scaler=static", "grad_scaler_value=128"), ("float32", "static", 128.0)),
    ],
)
def test_an_identity_has_the_precision_and_the_scale_on_the_device(sets: tuple[str, ...], values: Any) -> None:
    identity = identity_of("yolov5n-r7", *(f"train.{each}" for each in sets))
    assert tuple(identity.get(f"train.{key}") for key in ("precision", "grad_scaler", "grad_scaler_value")) == values


def test_a_training_of_the_version_before_on_ascend_is_continued_in_float32() -> None:
    now = identity_of("yolov5n-r7", "train.device_target=Ascend")
    before = {key: value for key, value in now.items() if key not in NEW_KEYS}
    typed = typed_remedy(before, now)
    assert typed == ["train.grad_scaler=none", "train.precision=float32"]
    assert changed_keys(before, identity_of("yolov5n-r7", "train.device_target=Ascend", *typed)) == []
    with pytest.raises(InputError, match=r"train\.precision = 'float16', now it is 'float32'; set it back \(--set"):
        refuse_changes(now, {**now, "train.precision": "float32"}, "place")


ADDED = ("mosaic_center", "mixup_beta", "mixup_mosaics_only", "copy_paste", "degrees", "shear", "perspective")
ADDED += ("max_aspect", "min_area_left")


def of_earlier_version(saved: dict[str, Any]) -> dict[str, Any]:
    """Return an identity as a version without rotation, shear and perspective wrote it."""
    return {key: value for key, value in saved.items() if key.removeprefix("augment.") not in ADDED}


@pytest.mark.parametrize("model", ["yolov5s-r7", "yolov5s", "yolov3", "yolov3-quant", "yolov4", "yolov4-tiny"])
def test_trainings_of_an_earlier_version_are_resumed_with_the_keys_added_to_the_augmentation(model: str) -> None:
    now = identity_of(model)
    saved = of_earlier_version(now)
    assert saved != now and changed_keys(saved, now) == []
    refuse_changes(saved, now, "place")


def test_a_training_without_a_window_of_partners_continues_without_it() -> None:
    now = identity_of("yolov5s-r7")
    saved = {key: value for key, value in now.items() if key != PARTNER_WINDOW}
    assert now[PARTNER_WINDOW] == "auto" and changed_keys(saved, now) == []
    assert PARTNER_WINDOW not in continued_identity(saved, {**now, "train.max_epoch": 999}, 5)
    assert continued_identity(now, now, 5) == now
    windowed = identity_of("yolov5s-r7", "augment.partner_window=512")
    with pytest.raises(InputError, match=r"used augment\.partner_window = 'auto'.*--set augment\.partner_window=auto "):
        refuse_changes(saved, windowed, "place")
    with pytest.raises(InputError, match=r"partner_window = 512, now it is 'auto'; set it back \(--set augment\.pa"):
        refuse_changes(windowed, now, "place")
    single = ("augment.mosaic=0", "augment.mixup=0")
    assert identity_of("yolov5s-r7", *single) == identity_of("yolov5s-r7", *single, "augment.partner_window=9")
    assert PARTNER_WINDOW in identity_of("yolov5s-r7", "augment.mosaic=0", "augment.mixup=0.1")


def test_a_training_of_an_earlier_version_whose_preset_has_changed_is_refused_with_what_resumes_it() -> None:
    now = identity_of("yolov4-csp")
    saved = of_earlier_version(now)
    with pytest.raises(InputError) as refused:
        refuse_changes(saved, now, "place")
    message = str(refused.value)
    assert "started by an earlier version of kubeyolo, which used augment.max_aspect = 100.0, now" in message
    typed = re.findall(r"--set (\S+)", message)
    assert {pair.partition("=")[0] for pair in typed} == {
        "augment.max_aspect",
        "augment.min_area_left",
        "augment.mosaic_center",
    }
    assert changed_keys(saved, identity_of("yolov4-csp", *typed)) == []
    # It is named before a length, and not where something else differs or an anchor was added.
    with pytest.raises(InputError, match="by an earlier version"):
        refuse_changes(saved, identity_of("yolov4-csp", "train.max_epoch=400"), "place")
    with pytest.raises(InputError, match=r"started with train\.lr = 0\.01, now it is 0\.02; set it back"):
        refuse_changes(saved, identity_of("yolov4-csp", "train.lr=0.02"), "place")


def test_settings_of_the_augmentation_without_effect_are_no_part_of_the_identity() -> None:
    usual = identity_of("yolov5s-r7")
    assert identity_of("yolov5s-r7", "augment.mixup_beta=1", "augment.mixup_mosaics_only=false") == usual
    mixed = identity_of("yolov5s-r7", "augment.mixup=0.1")
    assert changed_keys(mixed, identity_of("yolov5s-r7", "augment.mixup=0.1", "augment.mixup_beta=1"))
    assert mixed == identity_of("yolov5s-r7", "augment.mixup=0.1", "augment.mixup_mosaics_only=false")
    half = ("augment.mixup=0.1", "augment.mosaic=0.5")
    assert identity_of("yolov5s-r7", *half) != identity_of("yolov5s-r7", *half, "augment.mixup_mosaics_only=false")
    none = "augment.mosaic=0"
    assert identity_of("yolov5s-r7", none) == identity_of("yolov5s-r7", none, "augment.mosaic_center=0")


def finished(folder: Path, identity: dict[str, Any]) -> Any:
    store = Place.of(folder).store
    result = TrainingResult(identity=identity, code_digest="", steps=60, bundle="", seconds=1.0, resumed_at=[])
    store.write_bytes(RESULT_NAME, result.model_dump_json().encode())
    store.write_bytes("bundle/bundle.json", b"{}")
    return store


def test_a_bundle_without_a_checkpoint_is_not_extended(tmp_path: Path) -> None:
    store = finished(tmp_path, TEN)
    assert not is_complete(Place.of(tmp_path), TWENTY, SPEC, print)
    with pytest.raises(InputError, match=r"cannot be extended from 10 to 20 epochs: it has no checkpoint"):
        state_to_continue(store, TWENTY, SPEC, True, print)


def test_an_extension_that_ended_not_finite_begins_anew_and_keeps_the_bundle(tmp_path: Path) -> None:
    store = finished(tmp_path, TEN)
    checkpoint(tmp_path, continued_identity(TEN, TWENTY, 60), 70)
    store.write_bytes("not-finite.json", b"{}")
    lower = {**TWENTY, "train.lr": 0.01}
    assert not is_complete(Place.of(tmp_path), lower, SPEC, print)
    assert state_to_continue(store, lower, SPEC, True, print) is None
    assert store.exists("bundle/bundle.json") and not store.exists(RESULT_NAME)
    assert newest_checkpoint(store, print) is None

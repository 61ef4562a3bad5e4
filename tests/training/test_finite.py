"""What is not finite is neither stored nor published, and the words about it work as typed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kubeyolo.bundle import BundleManifest
from kubeyolo.config.schema import Config
from kubeyolo.errors import InputError
from kubeyolo.storage.integrity import sha256_file
from kubeyolo.storage.place import Place
from kubeyolo.training import finite
from kubeyolo.training.checkpoints import CheckpointManifest, TrainingState, newest_checkpoint, write_checkpoint
from kubeyolo.training.distribution import Distribution
from kubeyolo.training.finite import Guard, NotFiniteError, first_not_finite, remedy_for, remembered
from kubeyolo.training.loop import Hooks, StopRequest, TrainingLoop
from kubeyolo.training.loop_parts import LoopSettings, Output
from kubeyolo.training.output import publish_weights, state_to_continue
from kubeyolo.training.pretrain import pretrain_backbone
from kubeyolo.training.spec import TrainingSpec
from tests.training.test_engine import batch, small_engine

NAMES = [f"{number}.png" for number in range(40)]
SPEC = TrainingSpec(dataset="d", output="o", config=Config(model="yolov5n-r7"))


class OneValueLater:
    """Two steps as they should be, then one whose batch normalization has one value for each channel."""

    steps_per_epoch = 1

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Any]:
        images, labels = batch(epoch)
        size = (2, 8) if epoch < 2 else (1, 1)
        yield SimpleNamespace(
            images=images[: size[0], :, : size[1], : size[1]],
            labels=labels[: size[0]],
            indices=np.array([epoch, epoch + 10], np.int64),
        )


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (folder / "checkpoints").iterdir())


@pytest.mark.usefixtures("mindspore_ready")
def test_a_running_statistic_that_is_no_number_stops_before_the_checkpoint(tmp_path: Path) -> None:
    engine, place = small_engine(), Place.of(tmp_path)
    guard = Guard("lower it", NAMES)
    settings = LoopSettings(total_steps=3, images_per_step=2, log_interval=1)
    loop = TrainingLoop(engine, OneValueLater(), settings, Output(place, {}), Hooks(guard=guard))
    with pytest.raises(NotFiniteError) as caught, remembered(place.store):
        loop.run()
    assert str(caught.value) == (
        "training step 3: 4 of the 4 values of the running statistic '1.moving_variance' are infinite or NaN, "
        "so no checkpoint was written; images of its batch: 2.png, 12.png; lower it"
    )
    assert (
        all(np.isfinite(row.loss or 0.0) for row in loop.journal.history.rows) and len(loop.journal.history.rows) == 3
    )
    assert steps_in(tmp_path) == [1, 2] and (tmp_path / finite.FILE_NAME).is_file()
    # Nor is it published.
    manifest = BundleManifest(model="yolov5n-r7", classes=("a",), image_size=(64, 64), strides=(8,), anchors=())
    engine._average = None
    with pytest.raises(NotFiniteError, match="4 of the 4 values of the running statistic '1.moving_variance'"):
        publish_weights(Output(place, {}), engine, [], manifest, guard)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.usefixtures("mindspore_ready")
@pytest.mark.parametrize("part", ["weights", "moments"])
def test_a_process_that_writes_nothing_stops_at_what_all_processes_share(tmp_path: Path, part: str) -> None:
    from mindspore import Tensor

    engine = small_engine()
    parameters = engine._weights if part == "weights" else finite_moments(engine)
    name = next(name for name in parameters if name.endswith("2.weight"))
    values = parameters[name].asnumpy().copy()
    values.flat[1] = np.inf
    parameters[name].set_data(Tensor(values))
    engine.train = lambda images, labels: step_of(engine)
    output = Output(Place.of(tmp_path), {}, is_written=False)
    loop = TrainingLoop(engine, OneValueLater(), LoopSettings(total_steps=2, images_per_step=2), output)
    with pytest.raises(NotFiniteError, match=rf"step 1: 1 of the 4 values of the {part[:-1]}.*2\.weight'"):
        loop.run()


def finite_moments(engine: Any) -> Any:
    from kubeyolo.training.optimizers import moment_parameters

    return moment_parameters(engine._optimizer)


def step_of(engine: Any) -> Any:
    engine.step += 1
    return SimpleNamespace(asnumpy=lambda: np.ones(5))


def test_the_first_array_that_is_not_finite_is_found_also_where_sums_overflow() -> None:
    large = np.full(1000, 3e38, np.float32)
    assert first_not_finite({"a": large, "b": np.zeros(0, np.float32)}) is None
    bad = np.float32([1, np.nan, -np.inf])
    assert first_not_finite({"a": large, "b": bad, "c": bad[1:]}) == ("b", 2)


def test_an_old_checkpoint_with_values_that_are_no_numbers_is_skipped(tmp_path: Path) -> None:
    store = Place.of(tmp_path).store
    state = TrainingState(step=3, identity={}, weights={"w": np.float32([1, 2])})
    write_checkpoint(store, state)
    key = write_checkpoint(store, replace(state, step=6)).removeprefix("file://")
    path, document = Path(key) / "weights.safetensors", Path(key) / "checkpoint.json"
    save_file({"w": np.float32([1, np.nan])}, path)
    manifest = CheckpointManifest.model_validate_json(document.read_bytes())
    facts = manifest.files["weights.safetensors"].model_copy(update={"sha256": sha256_file(path)})
    document.write_text(
        manifest.model_copy(update={"files": manifest.files | {"weights.safetensors": facts}}).model_dump_json()
    )
    lines: list[str] = []
    back = newest_checkpoint(store, lines.append)
    assert back is not None and back.step == 3
    assert len(lines) == 1 and "step-00000006" in lines[0] and "1 values of 'w'" in lines[0]


def output_with_checkpoint(folder: Path, not_finite: bool) -> Any:
    store = Place.of(folder).store
    identity = {"train.lr": 1.0, "train.seed": 0}
    write_checkpoint(store, TrainingState(step=3, identity=identity, weights={"w": np.float32([1])}))
    if not_finite:
        with pytest.raises(NotFiniteError), remembered(store):
            raise NotFiniteError("so it is")
    return store


def test_after_such_an_end_a_lower_rate_begins_anew(tmp_path: Path) -> None:
    store, lines = output_with_checkpoint(tmp_path, True), list[str]()
    now = {"train.lr": 0.1, "train.seed": 0}
    assert state_to_continue(store, now, SPEC, False, lines.append) is None
    assert newest_checkpoint(store, print) is not None
    assert state_to_continue(store, now, SPEC, True, lines.append) is None
    assert len(lines) == 2 and "starting from step 0 with train.lr = 0.1 in place of 1.0" in lines[1]
    assert newest_checkpoint(store, print) is None and not (tmp_path / finite.FILE_NAME).exists()


def test_other_changes_are_refused_and_no_change_continues(tmp_path: Path) -> None:
    store = output_with_checkpoint(tmp_path / "a", True)
    with pytest.raises(InputError, match=r"train\.seed = 0, now it is 1"):
        state_to_continue(store, {"train.lr": 0.1, "train.seed": 1}, SPEC, True, print)
    state = state_to_continue(store, {"train.lr": 1.0, "train.seed": 0}, SPEC, True, print)
    assert state is not None and state.step == 3 and not (tmp_path / "a" / finite.FILE_NAME).exists()
    # A training that was merely interrupted keeps what it has.
    whole = output_with_checkpoint(tmp_path / "b", False)
    with pytest.raises(InputError, match=r"train\.lr"):
        state_to_continue(whole, {"train.lr": 0.1, "train.seed": 0}, SPEC, True, print)
    assert newest_checkpoint(whole, print) is not None


@pytest.mark.parametrize(
    ("task", "values", "words"),
    [
        ("detector", {"train": {"lr": 1e6}}, "train.lr = 1e+06: run the same command with --set train.lr=0.01; it"),
        (
            "detector",
            {"train": {"lr": 0.005, "warmup_epochs": 4}},
            "--set train.lr=0.0005, or lengthen the warm-up with --set train.warmup_epochs=8; it starts from step 0",
        ),
        ("backbone", {"pretrain": {"lr": 0.002}}, "pretrain.lr = 0.002: run the same command with --set pretrain.lr="),
    ],
)
def test_the_remedy_has_values_that_are_lower(task: str, values: dict[str, Any], words: str) -> None:
    assert words in remedy_for(Config.model_validate({"model": "yolov5n-r7", **values}), task)


def test_the_images_of_a_large_batch_are_counted() -> None:
    error = Guard("x", NAMES).loss(7, "(nan)", "(1)", [*range(20), 3, -1])
    assert "images of its batch: 0.png, 1.png" in str(error) and "15.png and 4 more; x" in str(error)
    assert "images" not in str(Guard("x").loss(7, "(nan)", "(1)", [1, 2]))


def test_a_pretraining_on_one_value_for_each_channel_is_refused_before_its_data_is_read(tmp_path: Path) -> None:
    small = {"image_size": 32, "per_batch_size": 1}
    spec = TrainingSpec(
        task="backbone",
        dataset=str(tmp_path / "none"),
        output=str(tmp_path / "o"),
        config=Config.model_validate({"model": "yolov5n-r7", "pretrain": small}),
    )
    with pytest.raises(InputError, match=r"set pretrain\.per_batch_size to 2 or more, or pretrain\.image_size to 64"):
        pretrain_backbone(spec, Distribution(), StopRequest())
    assert not (tmp_path / "o").exists()

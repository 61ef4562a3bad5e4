from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kubeyolo.errors import InputError
from kubeyolo.storage.place import Place
from kubeyolo.training.checkpoints import TrainingState, checkpoint_key, newest_checkpoint, write_checkpoint
from kubeyolo.training.history import HistoryRow, TrainingHistory
from kubeyolo.training.spec import refuse_changes


def state_at(step: int) -> TrainingState:
    rng = np.random.default_rng(step)
    return TrainingState(
        step=step,
        identity={"train.lr": 0.1, "train.lr_epochs": [1, 2]},
        weights={"conv.weight": rng.random((2, 3, 4)).astype(np.float32).transpose(2, 0, 1)},
        ema={"conv.weight": rng.random((4, 2, 3)).astype(np.float32)},
        moments={"velocity.conv.weight": rng.random((4, 2, 3)).astype(np.float32)},
        ema_updates=step,
        optimizer_steps=step,
        pending=[[1.5, 0.25, 0.1 + 0.2]],
        history=b'{"step":1}\n',
        code_digest="abc",
    )


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def silent(line: str) -> None:
    raise AssertionError(f"unexpected warning: {line}")


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store = Place.of(tmp_path).store
    assert newest_checkpoint(store, silent) is None
    state = state_at(7)
    write_checkpoint(store, state)
    back = newest_checkpoint(store, silent)
    assert back is not None
    for part in ("weights", "ema", "moments"):
        for name, array in getattr(state, part).items():
            np.testing.assert_array_equal(getattr(back, part)[name], array)
    assert (back.step, back.ema_updates, back.optimizer_steps) == (7, 7, 7)
    assert (back.pending, back.history, back.identity) == (state.pending, state.history, state.identity)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = Place.of(tmp_path).store
    for step in (5, 10, 15, 20):
        write_checkpoint(store, state_at(step), keep=2)
    assert steps_in(tmp_path) == ["step-00000015", "step-00000020"]


@pytest.mark.parametrize("name", ["checkpoint.json", "weights.safetensors", "moments.safetensors", "history.jsonl"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_damaged_checkpoint_is_skipped_aloud(tmp_path: Path, name: str, damage: str) -> None:
    store = Place.of(tmp_path).store
    write_checkpoint(store, state_at(3))
    write_checkpoint(store, state_at(6))
    path = tmp_path / checkpoint_key(6) / name
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    if damage == "changed":
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 255]) + data[-1:])
    warnings: list[str] = []
    back = newest_checkpoint(store, warnings.append)
    assert back is not None and back.step == 3
    assert len(warnings) == 1 and "step-00000006" in warnings[0] and name in warnings[0]


def test_what_an_interrupted_write_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    store = Place.of(tmp_path).store
    store.write_bytes(f"{checkpoint_key(4)}/weights.safetensors", b"half")
    write_checkpoint(store, state_at(8))
    assert steps_in(tmp_path) == ["step-00000008"]


def test_a_change_of_what_the_weights_depend_on_is_refused_by_its_key() -> None:
    saved = {"train.lr": 0.1, "train.seed": 0}
    refuse_changes(saved, dict(saved), "somewhere")
    with pytest.raises(InputError, match=r"somewhere.*train\.lr = 0\.1.*now it is 0\.2.*choose another output"):
        refuse_changes(saved, {"train.lr": 0.2, "train.seed": 0}, "somewhere")


def test_history_rows_survive_json_lines() -> None:
    history = TrainingHistory(
        [HistoryRow(step=1, epoch=0, loss=0.1 + 0.2), HistoryRow(kind="val", step=2, epoch=0, ap=0.5)]
    )
    back = TrainingHistory.from_bytes(history.to_bytes())
    assert back.rows == history.rows
    assert [row.ap for row in back.of("val")] == [0.5]
    with pytest.raises(InputError, match=r"history\.jsonl, line 1"):
        TrainingHistory.from_bytes(b"{\n")

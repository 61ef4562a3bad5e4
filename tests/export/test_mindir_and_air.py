from __future__ import annotations

import numpy as np
import pytest

from kubeyolo.errors import InputError, WorkError
from kubeyolo.evaluation.network import MindirRuntime
from kubeyolo.export.mindspore_export import check_air_possible, export_cell
from tests.export.tiny_detector import images


def test_mindir_computes_what_the_network_computes(detector):
    runtime = MindirRuntime(detector.mindir)
    assert (runtime.batch_size, runtime.image_size) == (1, (96, 128))
    for exported, trained in zip(runtime.raw(images(2)[:1]), detector.raw(images(2)[:1]), strict=True):
        np.testing.assert_allclose(exported, trained, atol=1e-4)


def test_a_network_that_mindspore_parts_becomes_one_file(detector, tmp_path, monkeypatch):
    from mindspore.train import serialization

    # MindSpore parts what is larger than this, in KiB.
    monkeypatch.setattr(serialization, "TOTAL_SAVE", 1)
    export_cell(detector.build(), (1, 3, *detector.manifest.image_size), tmp_path / "model.mindir", "MINDIR")
    assert [path.name for path in tmp_path.iterdir()] == ["model.mindir"]
    assert (tmp_path / "model.mindir").stat().st_size > 4 * 1_700_000
    runtime = MindirRuntime(tmp_path / "model.mindir")
    for exported, trained in zip(runtime.raw(images(2)[:1]), detector.raw(images(2)[:1]), strict=True):
        np.testing.assert_allclose(exported, trained, atol=1e-4)


def test_other_files_are_no_mindir(tmp_path):
    path = tmp_path / "model.mindir"
    path.write_bytes(b"\x0a\xff\xff\xff\xff\x0f nothing")
    with pytest.raises(InputError, match="model.mindir: not a readable MINDIR file"):
        MindirRuntime(path)


def test_air_is_refused_off_ascend():
    with pytest.raises(InputError, match="air .* Ascend device only, .* is CPU"):
        check_air_possible("CPU")
    check_air_possible("Ascend")


def test_what_mindspore_cannot_export_is_one_line_and_leaves_no_file(tmp_path):
    from kubeyolo.runtime import configure_mindspore

    configure_mindspore()
    from mindspore import nn

    with pytest.raises(WorkError, match="mish.onnx: MindSpore cannot export to ONNX: ") as raised:
        export_cell(nn.Mish(), (1, 3, 32, 32), tmp_path / "mish.onnx", "ONNX")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []

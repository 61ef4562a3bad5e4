"""Export by MindSpore: to MINDIR, its own format, and to AIR, which only an Ascend machine can write."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kubeyolo.errors import InputError, WorkError

FILE_MODE = 0o644

AIR_NOTE = "AIR is deprecated in MindSpore, which will drop it: prefer ONNX for atc, and MINDIR for MindSpore Lite"


def check_air_possible(device_target: str) -> None:
    """Refuse AIR on devices other than Ascend; called before any work is done.

    Raises:
        InputError: ``device_target`` is not Ascend.
    """
    if device_target != "Ascend":
        raise InputError(
            f"export.formats: air can be written on an Ascend device only, and export.device_target is "
            f"{device_target}; drop air from export.formats, or export on an Ascend cluster "
            "(the Ascend tool atc makes an .om file from ONNX without a card)"
        )


def export_cell(
    network: Any, shape: tuple[int, int, int, int], path: Path, file_format: Literal["ONNX", "MINDIR", "AIR"]
) -> None:
    """Write a network for images of one shape (N, 3, H, W), in inference mode.

    Args:
        network: A fresh ``mindspore.nn.Cell``, since MindSpore cannot export the same instance twice.
        shape: Shape of the input.
        path: The file, written in one step with mode 0644.
        file_format: MindSpore's name of the format.

    Raises:
        WorkError: MindSpore cannot export the network.
    """
    import mindspore

    network.set_train(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / f"model.{file_format.lower()}"
        try:
            example = mindspore.Tensor(np.zeros(shape, np.float32))
            mindspore.export(network, example, file_name=str(written), file_format=file_format)
        except Exception as error:  # MindSpore raises all kinds of errors of its compiler
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            remedy = "; drop air from export.formats" if file_format == "AIR" else ""
            raise WorkError(f"{path}: MindSpore cannot export to {file_format}: {line}{remedy}") from error
        if file_format == "MINDIR" and not written.exists():
            join_mindir(written)
        if file_format == "AIR":
            _check_air(path, written)
        written.chmod(FILE_MODE)
        os.replace(written, path)


def _check_air(path: Path, written: Path) -> None:
    """Refuse an AIR network that is not one file: MindSpore puts weights of more than 2 GB into a folder next to it."""
    names = sorted(entry.name for entry in written.parent.iterdir())
    if names != [written.name]:
        found = ", ".join(names) or "no file"
        raise WorkError(
            f"{path}: MindSpore wrote {found}, and a bundle has one file for AIR; drop air from export.formats"
        )


def join_mindir(path: Path) -> None:
    """Join into one file the parts that MindSpore writes if the parameters of a network take more than 1 GiB.

    A bundle has one file for each format, and MindSpore reads files of up to 2 GiB. The parts are
    ``<name>_graph.mindir`` and, in ``<name>_variables``, the parameters one after another.

    Args:
        path: The file to write, ``<name>.mindir``.
    """
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.with_name(f"{path.stem}_graph.mindir").read_bytes())
    for parameter in model.graph.parameter:
        data = parameter.external_data
        with (path.parent / data.location).open("rb") as file:
            file.seek(data.offset)
            parameter.raw_data = file.read(data.length)
        parameter.ClearField("external_data")
    path.write_bytes(model.SerializeToString())

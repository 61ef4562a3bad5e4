"""What all exports of a MindSpore network have in common."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from kubeyolo.errors import WorkError

FILE_MODE = 0o644


def export_cell(
    network: Any, shape: tuple[int, int, int, int], path: Path, file_format: Literal["ONNX", "MINDIR", "AIR"]
) -> None:
    """Write a network for images of one shape (N, 3, H, W), in inference mode.

    Args:
        network: A fresh ``mindspore.nn.Cell``: exporting the same instance a second time is broken in MindSpore.
        shape: Of the input.
        path: Where the file is put, with mode 0644 and all at once.
        file_format: MindSpore's name of the format.

    Raises:
        WorkError: MindSpore cannot export the network.
    """
    import mindspore
    import numpy as np

    network.set_train(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / f"model.{file_format.lower()}"
        try:
            example = mindspore.Tensor(np.zeros(shape, np.float32))
            mindspore.export(network, example, file_name=str(written), file_format=file_format)
        except Exception as error:  # MindSpore raises whatever its compiler raises
            line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise WorkError(f"{path}: MindSpore cannot export to {file_format}: {line}") from error
        if file_format == "MINDIR" and not written.exists():
            join_mindir(written)
        written.chmod(FILE_MODE)
        os.replace(written, path)


def join_mindir(path: Path) -> None:
    """Make one file of what MindSpore writes when the parameters of a network take more than 1 GiB.

    A bundle has one file for a format, and MindSpore reads one of up to 2 GiB. The parts are
    ``<name>_graph.mindir`` and, in ``<name>_variables``, the parameters one after another.

    Args:
        path: The file as it would be if it had not been parted.
    """
    from mindspore.train import mind_ir_pb2

    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(path.with_name(f"{path.stem}_graph.mindir").read_bytes())
    for parameter in model.graph.parameter:
        place = parameter.external_data
        with (path.parent / place.location).open("rb") as file:
            file.seek(place.offset)
            parameter.raw_data = file.read(place.length)
        parameter.ClearField("external_data")
    path.write_bytes(model.SerializeToString())

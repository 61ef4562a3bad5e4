"""Export to ONNX for any runtime: batch norm folded, named outputs, boxes decoded, any batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, version_converter

from kubeyolo.bundle import BundleManifest
from kubeyolo.errors import WorkError
from kubeyolo.evaluation.runtimes import INPUT_NAME, PREDICTIONS_NAME, OnnxRuntime
from kubeyolo.export import onnx_graph
from kubeyolo.export.metadata import onnx_metadata
from kubeyolo.export.mindspore_export import FILE_MODE, export_cell
from kubeyolo.models.named_facts import model_facts
from kubeyolo.storage.integrity import appearing
from kubeyolo.storage.workspace import temporary_folder

OPSET = 17
"""Opset of a file by default."""

IR_VERSIONS = {11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8}
"""Version of the file format by opset: that of the first ONNX release with this opset."""

MINDSPORE_OPSET = 11
"""Opset that MindSpore writes."""

EXPORTED_BATCH = 2
BATCH_RTOL = 1e-5


def export_onnx(manifest: BundleManifest, build_network: Callable[[], Any], path: Path, opset: int = OPSET) -> None:
    """Write a detector as ONNX for any number of images.

    The file is run on a batch of three images and on each image alone; the results must agree.

    Input ``images`` (N, 3, H, W) float32 in 0..1. Outputs ``raw_<stride>`` (N, na, ny, nx, 5+nc) for each level, before
    the sigmoid, and ``predictions`` (N, boxes, 5+nc): centre x, centre y, width, height in input pixels, objectness
    and class scores. The file has the metadata of :mod:`kubeyolo.export.metadata`.

    Args:
        manifest: Manifest of the bundle.
        build_network: Builds a fresh network with its weights, as
            :func:`kubeyolo.evaluation.network.load_network` does.
        path: The file to write.
        opset: A key of :data:`IR_VERSIONS`.

    Raises:
        WorkError: MindSpore or ONNX cannot export the network, or its results depend on the batch size.
    """
    with temporary_folder("onnx") as folder:
        written = folder / "written.onnx"
        export_cell(build_network(), (EXPORTED_BATCH, 3, *manifest.image_size), written, "ONNX")
        model = onnx.load(str(written))
    model = _clean(model, manifest, opset)
    onnx_graph.check_graph(model, str(path))
    with appearing(path) as part:
        onnx.save(model, str(part))
        _verify_symbolic_batch(part, manifest)
        part.chmod(FILE_MODE)


def _clean(model: onnx.ModelProto, manifest: BundleManifest, opset: int) -> onnx.ModelProto:
    """Convert an ONNX file as MindSpore writes it (opset 11, numeric names) into the format of :func:`export_onnx`."""
    onnx_graph.constants_to_initializers(model.graph)
    onnx_graph.fold_batch_norms(model.graph)
    onnx_graph.drop_unused_initializers(model.graph)
    levels = [f"raw_{stride}" for stride in manifest.strides]
    names = {value.name: level for value, level in zip(model.graph.output, levels, strict=True)}
    names[model.graph.input[0].name] = INPUT_NAME
    onnx_graph.rename_values(model.graph, names)
    onnx_graph.make_batch_symbolic(model.graph, EXPORTED_BATCH)
    if opset > MINDSPORE_OPSET:
        model = version_converter.convert_version(model, opset)
    facts = model_facts(manifest.model)
    anchors, strides = manifest.anchors, manifest.strides
    onnx_graph.append_decode(model, levels, PREDICTIONS_NAME, anchors, strides, facts.decode, facts.scale_xy)
    model.ir_version = IR_VERSIONS[opset]
    model.graph.name = manifest.model
    del model.metadata_props[:]
    helper.set_model_props(model, onnx_metadata(manifest, opset).properties)
    return model


def _verify_symbolic_batch(path: Path, manifest: BundleManifest) -> None:
    """Run a batch of three images, and each image alone; the results must agree."""
    runtime = OnnxRuntime(path, manifest)
    images = np.random.default_rng(0).uniform(0, 1, (3, 3, *manifest.image_size)).astype(np.float32)
    together = [*runtime.raw(images), runtime.predictions(images)]
    for number in range(3):
        image = images[number : number + 1]
        for whole, alone in zip(together, [*runtime.raw(image), runtime.predictions(image)], strict=True):
            assert whole is not None and alone is not None
            error = float(np.abs(whole[number : number + 1] - alone).max())
            if not error <= BATCH_RTOL * max(float(np.abs(alone).max()), 1e-6):
                raise WorkError(
                    f"{path.name}: image {number} of a batch of 3 differs by {error:.3g} from the same image alone; "
                    "the network mixes images of a batch, so it cannot be exported with a dynamic batch size"
                )

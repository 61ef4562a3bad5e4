"""A small detector whose outputs depend on its input, exported once for all tests."""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kubeyolo.bundle import BundleManifest
from kubeyolo.models.named_facts import model_facts
from kubeyolo.models.registry import build_model

MODEL = "yolov5n-r7"
SIZE = (96, 128)
CLASSES = ("disc", "ring", "cross")


def manifest(**updates) -> BundleManifest:
    facts = model_facts(MODEL)
    values = {
        "model": MODEL,
        "classes": CLASSES,
        "category_ids": (3, 5, 9),
        "image_size": SIZE,
        "strides": facts.strides,
        "anchors": facts.anchors,
    }
    return BundleManifest(**{**values, **updates})


def weights(model: str = MODEL) -> dict[str, np.ndarray]:
    """Return random weights with a gain that lets differences of the input reach the outputs."""
    from kubeyolo.runtime import configure_mindspore

    configure_mindspore()
    rng = np.random.default_rng(0)
    arrays = {}
    for parameter in build_model(model, len(CLASSES)).get_parameters():
        shape, name = parameter.shape, parameter.name
        if len(shape) == 4:
            values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("gamma"):
            values = 1.44 * rng.uniform(0.8, 1.2, shape)
        elif name.endswith("moving_variance"):
            values = rng.uniform(0.8, 1.2, shape)
        else:
            values = 0.1 * rng.standard_normal(shape)
        arrays[name] = values.astype(np.float32)
    return arrays


def images(count: int, seed: int = 0) -> np.ndarray:
    """Return (count, 3, H, W) in 0..1: blocks of colour, of another size in each image."""
    rng = np.random.default_rng(seed)
    batch = np.zeros((count, 3, *SIZE), np.float32)
    for image in batch:
        block = int(rng.integers(4, 32))
        colours = rng.uniform(0, 1, (3, SIZE[0] // block + 1, SIZE[1] // block + 1))
        image[:] = np.kron(colours, np.ones((block, block)))[:, : SIZE[0], : SIZE[1]]
    return batch


@dataclass(frozen=True)
class ExportedDetector:
    manifest: BundleManifest
    weights: Path
    onnx: Path
    mindir: Path
    raws: tuple[np.ndarray, ...]
    """What the network in MindSpore makes of ``images(2)``."""

    def raw(self, batch: np.ndarray) -> list[np.ndarray]:
        assert (batch == images(2)[: len(batch)]).all()
        return [level[: len(batch)] for level in self.raws]

    def build(self):
        from kubeyolo.evaluation.network import load_network

        return load_network(self.manifest, self.weights)


def exported_detector(base: Path) -> ExportedDetector:
    """Export the detector into a folder, once for all processes that test beside each other."""
    folder = base / "exported-detector"
    described = manifest()
    with (base / "exported-detector.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            write_detector(described, folder)
    with np.load(folder / "raws.npz") as arrays:
        raws = tuple(arrays[name] for name in arrays.files)
    files = (folder / name for name in ("weights.safetensors", "model.onnx", "model.mindir"))
    return ExportedDetector(described, *files, raws)


def write_detector(described: BundleManifest, folder: Path) -> None:
    from safetensors.numpy import save_file

    from kubeyolo.evaluation.network import load_network
    from kubeyolo.evaluation.runtimes import CellRuntime
    from kubeyolo.export.mindspore_export import export_cell
    from kubeyolo.export.onnx import export_onnx

    part = folder.with_name("exported-detector.part")
    part.mkdir()
    save_file(weights(), part / "weights.safetensors")

    def build():
        return load_network(described, part / "weights.safetensors")

    np.savez(part / "raws.npz", *CellRuntime(build()).raw(images(2)))
    export_onnx(described, build, part / "model.onnx")
    export_cell(build(), (1, 3, *described.image_size), part / "model.mindir", "MINDIR")
    part.rename(folder)

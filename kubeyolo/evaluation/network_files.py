"""The file of a bundle that each runtime reads."""

from __future__ import annotations

from collections.abc import Mapping

from kubeyolo.bundle import MINDIR, ONNX, ONNX_INT8, WEIGHTS, Bundle, BundleManifest
from kubeyolo.errors import InputError
from kubeyolo.evaluation.results import NEED_OPENVINO, RuntimeName
from kubeyolo.models.named_facts import model_facts

NETWORK_FILES: Mapping[RuntimeName, str] = {
    "mindspore": WEIGHTS,
    "onnx": ONNX,
    "int8": ONNX_INT8,
    "mindir": MINDIR,
    "openvino": ONNX,
    "openvino-int8": ONNX_INT8,
}
"""Name of the file of each runtime."""

_MADE_BY: Mapping[RuntimeName, str] = {
    "onnx": "export",
    "int8": "quantize",
    "mindir": "export",
    "openvino": "export",
    "openvino-int8": "quantize",
}


def check_network(bundle: Bundle, runtime: RuntimeName) -> None:
    """Refuse a bundle that has no network for a runtime.

    Raises:
        InputError: It is not the bundle of a detector, or has no file for the runtime; the message names the runtimes
            that it has a file for.
    """
    manifest, file = bundle.manifest, NETWORK_FILES[runtime]
    if manifest.kind != "detector":
        raise InputError(f"{bundle.uri}: this is the bundle of a {manifest.kind}, not of a detector; give a detector")
    if file in manifest.files:
        return
    # OpenVINO reads the files of onnxruntime: one of them is enough.
    others = [name for name, each in NETWORK_FILES.items() if each in manifest.files and name not in NEED_OPENVINO]
    remedies = [f"choose the runtime {' or '.join(others)}"] if others else []
    if runtime in _MADE_BY:
        remedies.append(f"make the file with 'kubeyolo {_MADE_BY[runtime]}'")
    raise InputError(
        f"{bundle.uri}: runtime = {runtime} needs the file {file}, which this bundle does not have"
        f"{'; ' if remedies else ''}{', or '.join(remedies)}"
    )


def check_facts(manifest: BundleManifest, uri: str) -> None:
    """Refuse a manifest whose strides or anchors its model cannot have.

    Raises:
        InputError: The model is not known, or strides or anchors are not possible; the message has the key and its
            value.
    """
    facts = model_facts(manifest.model)
    if manifest.strides != facts.strides:
        raise InputError(
            f"{uri}: strides is {list(manifest.strides)}, but model {facts.name} has {list(facts.strides)}; publish "
            "the bundle again"
        )
    shape = [len(level) for level in manifest.anchors]
    if shape != [facts.anchors_per_level] * len(facts.strides):
        needed = f"{len(facts.strides)} levels of {facts.anchors_per_level}"
        raise InputError(
            f"{uri}: anchors has levels of {shape} anchors, but model {facts.name} has {needed}; publish the bundle "
            "again"
        )

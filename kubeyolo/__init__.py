"""kubeyolo: annotated images in, a checked, evaluated, exported and quantized YOLO detector out."""

import contextlib
import itertools
import os
import sys

__version__ = "0.1.0"


def _leave_present_folder() -> None:
    """Remove the current folder from ``sys.path``, where ``python -m kubeyolo.…`` puts it before the standard library.

    A file random.py there would replace the module of the standard library.
    """
    # The first argument is "-m" only while Python looks for the module.
    if sys.flags.safe_path or sys.argv[:1] != ["-m"]:
        return
    if not any(option == "-m" and name.startswith("kubeyolo.") for option, name in itertools.pairwise(sys.orig_argv)):
        return
    with contextlib.suppress(FileNotFoundError):  # The folder may have been removed.
        if sys.path and sys.path[0] == os.getcwd():
            del sys.path[0]


_leave_present_folder()

# MindSpore's generated code needs protobuf's Python implementation. Protobuf chooses an implementation at its first
# import, which may be in kfp or onnx. Child processes inherit the choice.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

NO_TELEMETRY = {
    # onnxruntime reads it when it is imported. Without it, onnxruntime stores an id of the machine in the home folder,
    # sends events to Microsoft, and warns in every process without a home folder.
    "ORT_DISABLE_TELEMETRY": "1",
    # kubeyolo does not need MLflow and huggingface_hub, but its environment may have them.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A name that several packages read.
    "DO_NOT_TRACK": "1",
}
"""Environment variables that switch off the telemetry of packages. Child processes inherit them."""

for _name, _value in NO_TELEMETRY.items():
    os.environ.setdefault(_name, _value)

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

# onnxruntime keeps an id of the machine in the home folder; without a home folder it warns in every process.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

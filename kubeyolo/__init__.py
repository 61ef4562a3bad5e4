"""kubeyolo: annotated images in, a checked, evaluated, exported and quantized YOLO detector out."""

import contextlib
import itertools
import os
import sys

__version__ = "0.1.0"


def _leave_present_folder() -> None:
    """Take away the folder that ``python -m kubeyolo.…`` puts before the standard library.

    A random.py there would be imported by everything.
    """
    # The first argument is "-m" while the module is looked for, and never later.
    if sys.flags.safe_path or sys.argv[:1] != ["-m"]:
        return
    if not any(option == "-m" and name.startswith("kubeyolo.") for option, name in itertools.pairwise(sys.orig_argv)):
        return
    with contextlib.suppress(FileNotFoundError):  # The folder may have been removed.
        if sys.path and sys.path[0] == os.getcwd():
            del sys.path[0]


_leave_present_folder()

# MindSpore's generated code works with protobuf's Python implementation alone, and protobuf chooses one when it is
# first imported, which may be by kfp or onnx. Child processes inherit the choice.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

# onnxruntime keeps an id of the machine in the home folder, and warns in every process where there is none.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

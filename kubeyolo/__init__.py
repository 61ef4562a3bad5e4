"""kubeyolo: annotated images in, a checked, evaluated, exported and quantized YOLO detector out."""

import os

__version__ = "0.1.0"

# MindSpore's generated code works with protobuf's Python implementation alone, and protobuf chooses one when it is
# first imported, which may be by kfp or onnx. Child processes inherit the choice.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

# onnxruntime keeps an id of the machine in the home folder, and warns in every process where there is none.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

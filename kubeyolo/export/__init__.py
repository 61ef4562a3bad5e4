"""MINDIR, AIR, ONNX, and the parity check."""

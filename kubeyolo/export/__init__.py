"""Export to MINDIR, AIR and ONNX, and the parity check."""

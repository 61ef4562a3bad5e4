"""IoU, label assignment and one loss per file."""

"""The losses, with IoU and label assignment."""

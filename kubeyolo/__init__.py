"""kubeyolo: a COCO data set in, a checked, evaluated, exported and quantized YOLO detector out."""

__version__ = "0.1.0"

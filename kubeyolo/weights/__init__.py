"""Published weights in: arrays under the names of other programs."""

from kubeyolo.weights.arrays import load_arrays

__all__ = ["load_arrays"]

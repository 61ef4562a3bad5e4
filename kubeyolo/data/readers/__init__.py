"""Annotations of each format in, as the tables of :mod:`kubeyolo.data.raw`."""

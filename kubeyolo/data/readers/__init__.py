"""Read annotations of each format into the tables of :mod:`kubeyolo.data.raw`."""

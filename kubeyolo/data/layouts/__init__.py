"""Recognizes the layout of a data set in each format by the names of its files."""

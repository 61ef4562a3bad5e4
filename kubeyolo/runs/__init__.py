"""Runs of a compiled pipeline on this machine."""

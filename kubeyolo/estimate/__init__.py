"""Estimates a run before it starts: time, memory and disk space, and how a training scales with devices."""

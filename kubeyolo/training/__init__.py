"""Schedules, optimizer groups, EMA, the compiled step, the loop, checkpoints, distribution."""

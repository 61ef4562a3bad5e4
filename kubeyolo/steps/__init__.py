"""What each pipeline step does, as plain functions."""

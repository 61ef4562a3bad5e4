"""What is done with a compiled pipeline."""

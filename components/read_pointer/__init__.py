"""The component read_pointer."""

"""Networks and the registry of their names."""

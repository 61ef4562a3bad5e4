"""The component configure."""

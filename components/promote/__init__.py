"""The component promote."""

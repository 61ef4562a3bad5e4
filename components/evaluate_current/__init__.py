"""The component evaluate_current."""

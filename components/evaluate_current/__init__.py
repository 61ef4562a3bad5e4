"""The component evaluate_in_use."""

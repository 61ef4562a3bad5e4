"""The component validate_dataset."""

"""The component export_model."""

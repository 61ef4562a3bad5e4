"""The component stop_training."""

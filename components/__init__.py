"""The steps as Kubeflow sees them; needed to compile pipelines, but not to run them."""

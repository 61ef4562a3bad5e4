"""The steps as Kubeflow sees them; needed to compile pipelines, never to run them."""

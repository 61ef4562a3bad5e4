"""Compiled pipelines, as Kubeflow reads them."""

"""Compiled pipelines on Kubeflow: client, runs, schedules, gate."""

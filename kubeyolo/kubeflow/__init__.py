"""Compiled pipelines run on Kubeflow: client, runs, schedules, gate."""

"""The pipelines: directed graphs of components, compiled to kubeyolo/compiled."""

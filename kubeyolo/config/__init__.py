"""Configuration as data: pydantic schemas and one YAML preset per model."""

"""The component quantize."""

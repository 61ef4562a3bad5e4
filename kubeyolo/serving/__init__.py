"""Serving: a detector behind the open inference protocol (v2), without MindSpore."""

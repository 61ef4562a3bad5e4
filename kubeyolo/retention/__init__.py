"""Retention: which content of a store is still needed, and the removal of the rest."""

"""Prediction on images of users: which images are read, in which order, and how boxes are drawn."""

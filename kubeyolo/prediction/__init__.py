"""Prediction on users' images: finds and reads the images, detects objects, draws boxes."""

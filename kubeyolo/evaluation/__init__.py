"""Decode, NMS, COCO metrics, predictors."""

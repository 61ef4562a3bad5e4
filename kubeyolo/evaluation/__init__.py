"""Decode, NMS, COCO numbers, predictors."""

"""Data sets: COCO index, checks, manifest and shards, augmentation, batches."""

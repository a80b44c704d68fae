"""From image files to batches: decoding, caches, augmentation, targets, the input pipeline."""

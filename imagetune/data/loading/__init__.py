"""Image loading: decoding, caches, augmentation, targets and the input pipeline."""

"""Training, validation and test splits, folds, and the only way to the test split."""

"""Paired comparison of runs on the same test images: differences, significance tests and prediction churn."""

"""Metrics of each task (single label, ordinal, multi-label, regression) with their confidence intervals."""

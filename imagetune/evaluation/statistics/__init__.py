"""Confidence intervals, paired significance tests, power analysis, and the verdict on over-fitting in words."""

"""Intervals, paired tests, power, and the verdict in words."""

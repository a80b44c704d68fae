"""Metrics of each task with their intervals."""

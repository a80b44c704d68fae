"""Metrics on corrupted images."""

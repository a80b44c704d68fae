"""Kinds of sources of images, told apart without reading them; data workers import this, so it imports nothing."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
"""The endings of tables, which list images and their labels."""

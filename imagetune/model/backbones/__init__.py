"""Backbones: the table, their blocks, names and preprocessing."""

"""Pretrained weights: their sources, safe readers of their files, and matching with a backbone's layers."""

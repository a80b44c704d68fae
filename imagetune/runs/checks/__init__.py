"""Checks of a recipe against the real backbones, transforms and tasks, without importing Keras."""

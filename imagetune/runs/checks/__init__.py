"""Recipes checked against real backbones, transforms and tasks, without starting Keras."""

"""Optimization: Keras optimizers with learning rates by block, and learning-rate schedules."""

"""Measurements before training: learning-rate range test, batch size, loading processes, time and memory."""

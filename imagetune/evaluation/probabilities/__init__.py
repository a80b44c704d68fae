"""Calibration of probabilities, and decisions by them: thresholds, costs, selective and conformal prediction."""

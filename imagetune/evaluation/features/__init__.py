"""Analyses of backbone features: baselines, suspected label errors, nearest neighbours, out-of-distribution scores."""

"""What a backbone's features say: baselines, label errors, out-of-distribution scores."""

"""What runs trials: processes, a Ray cluster."""

"""A run's folder: its files, who writes them, and how they are read."""

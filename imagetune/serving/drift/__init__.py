"""Drift: whether a server's predictions still look like those for the validation images of its run."""

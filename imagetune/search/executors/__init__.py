"""Executors of trials: processes of this machine, or tasks of a Ray cluster."""

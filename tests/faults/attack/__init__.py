"""Hostile and unlucky inputs, given to the command line in watched processes: `python -m tests.faults.attack`."""

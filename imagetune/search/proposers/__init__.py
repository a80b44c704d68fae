"""Proposers of trials: oracles, sweeps, bake-offs, finalists; and the search spaces that they propose from."""

"""What proposes trials: oracles, sweeps, bake-offs, finalists."""

"""What a finished search says: axes, importance, verdict, sweeps, bake-offs."""

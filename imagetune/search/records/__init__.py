"""Records of a search (trials, journal, tables) and their analysis (importance, significance, Pareto front)."""

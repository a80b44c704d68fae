"""Work of a trial's process: training, folds, probes and median stopping."""

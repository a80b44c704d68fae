"""Export of a run's model to other runtimes, with a comparison of what each of them predicts."""

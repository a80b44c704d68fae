"""One run from its recipe to its test: checks, preparation, training, the test, and opening a finished run."""

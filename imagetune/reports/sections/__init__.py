"""The sections of a run's report, a module each."""

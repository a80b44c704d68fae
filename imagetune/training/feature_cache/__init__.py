"""Feature cache: the output of frozen layers, computed once instead of in every epoch."""

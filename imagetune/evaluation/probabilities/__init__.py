"""Whether probabilities can be trusted, and what is decided by them."""

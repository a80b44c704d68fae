"""The training loop: where it stands, what it commits, and how it goes on after an interruption."""

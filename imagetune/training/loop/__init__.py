"""The training loop: its state, checkpoints, and resuming after an interruption."""

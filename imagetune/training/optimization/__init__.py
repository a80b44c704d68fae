"""How it is learned: optimizers, schedules, learning-rate range test, batch size."""

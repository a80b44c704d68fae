"""What is learned: losses, metrics of training, mixing, penalties, distillation."""

"""What is measured before a training: learning rate, batch size, time and memory."""

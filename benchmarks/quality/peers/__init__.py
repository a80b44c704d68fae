"""What people use instead, written from its description: each module is a program that writes predictions."""

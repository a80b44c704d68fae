"""What people use instead, written from its description: each module is a program that trains and writes predictions."""

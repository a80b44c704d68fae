"""The Python API: the functions of the command line for programs and notebooks, and what they return."""

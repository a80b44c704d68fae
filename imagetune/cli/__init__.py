"""The command line: a module for each command, with its options, one call, and the layout of its output."""

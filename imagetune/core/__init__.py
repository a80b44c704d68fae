"""Utilities without anything about images or models: files, rows on disk, text, processes, plug-ins, messages."""

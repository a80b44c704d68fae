"""The run folder: paths of its files, its recorder and its reader."""

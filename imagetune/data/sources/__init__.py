"""Data sources: folders, tables and JSON label files, read into a catalog of records."""

"""The report of a search: one module per section, and their templates."""

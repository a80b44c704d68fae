"""Sections of a run's report, one module each: what evaluation.json holds, prepared for its template."""

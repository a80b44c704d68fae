"""Error analysis: mistakes, slices, residuals, confusions, neighbours."""

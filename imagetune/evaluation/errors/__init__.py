"""Error analysis: worst mistakes, slices, residuals, rank errors, and confusions of labels."""

"""The pages of one run: report, model card, PNG files."""

"""Backbones: the table of all, their construction, blocks, layer names and preprocessing."""

"""Everything that draws: pages, plots and images; nothing here computes a metric."""

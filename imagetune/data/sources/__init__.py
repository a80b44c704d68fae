"""What a data source holds: its records, and the catalog of all of them."""

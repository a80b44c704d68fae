"""What a search has recorded, and what follows from it."""

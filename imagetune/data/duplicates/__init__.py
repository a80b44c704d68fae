"""Near-duplicate images: perceptual hashes, their index, alignment and groups."""

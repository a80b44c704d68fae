"""Whether images that are served differ from those that the model was validated on."""

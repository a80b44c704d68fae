"""An augmentation preset."""


def small_shifts(size):
    """Return the transforms for images of ``size`` (height, width), as a recipe would list them."""
    height, width = size
    return [
        {"HorizontalFlip": {"p": 0.5}},
        {"Affine": {"translate_px": {"x": [-(width // 8), width // 8], "y": [-(height // 8), height // 8]}, "p": 1.0}},
    ]

"""Augmentation presets: none, light, medium, strong and randaugment, as lists of albumentations transforms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Spec = tuple[Mapping[str, Mapping[str, Any] | None], ...]

_FLIP = {"HorizontalFlip": {"p": 0.5}}


def _build_jitter(name: str) -> dict[str, dict[str, Any]]:
    """Return a ColorJitter of a single property: brightness, contrast, saturation or hue."""
    still: dict[str, Any] = {"brightness": [1, 1], "contrast": [1, 1], "saturation": [1, 1], "hue": [0, 0]}
    return {"ColorJitter": {**still, name: [0.73, 1.27], "p": 1.0}}


_LIGHT: Spec = (
    _FLIP,
    {
        "Affine": {
            "scale": [0.92, 1.08],
            "translate_percent": [-0.05, 0.05],
            "rotate": [-7, 7],
            "keep_ratio": True,
            "p": 0.6,
        }
    },
    {
        "ColorJitter": {
            "brightness": [0.9, 1.1],
            "contrast": [0.9, 1.1],
            "saturation": [0.9, 1.1],
            "hue": [-0.01, 0.01],
            "p": 0.4,
        }
    },
)

_MEDIUM: Spec = (
    _FLIP,
    {
        "Affine": {
            "scale": [0.8, 1.15],
            "translate_percent": [-0.08, 0.08],
            "rotate": [-15, 15],
            "keep_ratio": True,
            "p": 0.8,
        }
    },
    {
        "ColorJitter": {
            "brightness": [0.8, 1.2],
            "contrast": [0.8, 1.2],
            "saturation": [0.75, 1.25],
            "hue": [-0.03, 0.03],
            "p": 0.6,
        }
    },
    {"GaussianBlur": {"blur_limit": [3, 3], "p": 0.1}},
)

_STRONG: Spec = (
    _FLIP,
    {
        "Affine": {
            "scale": [0.65, 1.25],
            "translate_percent": [-0.12, 0.12],
            "rotate": [-25, 25],
            "shear": [-8, 8],
            "keep_ratio": True,
            "p": 0.9,
        }
    },
    {
        "ColorJitter": {
            "brightness": [0.65, 1.35],
            "contrast": [0.65, 1.35],
            "saturation": [0.5, 1.5],
            "hue": [-0.05, 0.05],
            "p": 0.8,
        }
    },
    {"ToGray": {"p": 0.05}},
    {
        "OneOf": {
            "transforms": [
                {"GaussianBlur": {"blur_limit": [3, 5]}},
                {"GaussNoise": {"std_range": [0.02, 0.08]}},
                {"ImageCompression": {"quality_range": [40, 80]}},
            ],
            "p": 0.3,
        }
    },
    {"CoarseDropout": {"num_holes_range": [1, 4], "fill": "random_uniform", "p": 0.35}},
)

# Cubuk et al., "RandAugment: Practical automated data augmentation with a reduced search space" (2020): two of its
# fourteen operations, each at magnitude 9 of 30; the ranges are those of its TensorFlow code.
_RANDAUGMENT: Spec = (
    _FLIP,
    {
        "SomeOf": {
            "n": 2,
            "p": 1.0,
            "transforms": [
                {"NoOp": {"p": 1.0}},
                {"AutoContrast": {"p": 1.0}},
                {"Equalize": {"p": 1.0}},
                {"Rotate": {"limit": [-9, 9], "p": 1.0}},
                {"Solarize": {"threshold_range": [0.7, 0.7], "p": 1.0}},
                _build_jitter("saturation"),
                {"Posterize": {"num_bits": [6, 6], "p": 1.0}},
                _build_jitter("contrast"),
                _build_jitter("brightness"),
                {"Sharpen": {"alpha": [0.1, 0.3], "p": 1.0}},
                {"Affine": {"shear": {"x": [-5, 5], "y": [0, 0]}, "p": 1.0}},
                {"Affine": {"shear": {"x": [0, 0], "y": [-5, 5]}, "p": 1.0}},
                {"Affine": {"translate_percent": {"x": [-0.13, 0.13], "y": [0, 0]}, "p": 1.0}},
                {"Affine": {"translate_percent": {"x": [0, 0], "y": [-0.13, 0.13]}, "p": 1.0}},
            ],
        }
    },
)

PRESETS: Mapping[str, Spec] = {
    "none": (),
    "light": _LIGHT,
    "medium": _MEDIUM,
    "strong": _STRONG,
    "randaugment": _RANDAUGMENT,
}

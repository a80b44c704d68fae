"""Faster affine transform with the pixels of albumentations' own. It imports albumentations, so import it late."""

from __future__ import annotations

from typing import Any

import albumentations
import cv2
import numpy as np


class QuickAffine(albumentations.Affine):
    """Affine transform in half the time: OpenCV warps four channels together, but three one after the other."""

    def apply(self, img: np.ndarray, matrix: np.ndarray, output_shape: tuple[int, int], **params: Any) -> np.ndarray:
        """Return the warped image.

        Args:
            img: ``(h, w, 3)`` uint8; anything else is left to albumentations.
            matrix: ``(3, 3)`` map from the output's pixels to the input's, as albumentations passes it.
            output_shape: Height and width of the output.
            params: Further parameters of albumentations.
        """
        if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3:
            other: np.ndarray = super().apply(img, matrix, output_shape, **params)
            return other
        four = super().apply(cv2.cvtColor(img, cv2.COLOR_RGB2RGBA), matrix, output_shape, **params)
        warped: np.ndarray = cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)
        return warped

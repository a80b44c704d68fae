"""Saliency maps of images by Grad-CAM and by occlusion, and the rank correlation of both."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from imagetune.evaluation.explain.grad_cam import compute_grad_cam
from imagetune.evaluation.explain.occlusion import GRID, compute_occlusion
from imagetune.model.gradients import PASS_SIZE, SaliencyModel, compute_feature_maps

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class SaliencyMap:
    """The saliency maps of one image for one output: which places raise it, by Grad-CAM and by occlusion.

    Attributes:
        target: Index of the output.
        grad_cam: (rows, columns) float32 of the last feature map; negative where a place speaks against the output.
        occlusion: (`GRID`, `GRID`) float32, by how much the logit falls where the image is covered.
        agreement: Spearman's rank correlation of both over the places of the occlusion, -1 to 1; None where one of
            them is the same everywhere.
        against: Whether the maps show what speaks against the output: for regression, what lowers the number.
    """

    target: int
    grad_cam: Floats
    occlusion: Floats
    agreement: float | None
    against: bool = False

    @property
    def opposite(self) -> SaliencyMap:
        """The same maps with the opposite sign: which places lower the output."""
        return replace(self, grad_cam=-self.grad_cam, occlusion=-self.occlusion, against=not self.against)


def compute_saliency(split: SaliencyModel, images: Pixels, targets: NDArray[np.int64]) -> list[tuple[SaliencyMap, ...]]:
    """Return the saliency maps of each image, one for each of its targets.

    Args:
        split: The model, split behind its last feature map.
        images: (n, height, width, 3) uint8, RGB.
        targets: (n, t) indices of the outputs to explain.
    """
    if not len(images):
        return []
    parts = [images[first : first + PASS_SIZE] for first in range(0, len(images), PASS_SIZE)]
    cams = compute_grad_cam(split, np.concatenate([compute_feature_maps(split, part) for part in parts]), targets)
    falls = compute_occlusion(split, images, targets)
    return [
        tuple(
            SaliencyMap(int(target), cam, fall, compute_rank_agreement(cam, fall))
            for target, cam, fall in zip(targets[index], cams[index], falls[index], strict=True)
        )
        for index in range(len(images))
    ]


def compute_rank_agreement(cam: Floats, falls: Floats) -> float | None:
    """Return Spearman's rank correlation of a Grad-CAM and an occlusion map, at the latter's places; None if undefined.

    By ranks, as the two maps have different scales.
    """
    seen = cv2.resize(cam, (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    if np.ptp(seen) == 0 or np.ptp(falls) == 0:
        return None
    return float(spearmanr(seen.ravel(), falls.ravel()).statistic)

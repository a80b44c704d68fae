"""Image corruptions: the 15 common corruptions at five severities, and rotation, JPEG quality and image resolution.

The common corruptions and their parameters are those of Hendrycks and Dietterich, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations (ICLR 2019), chosen for images of 224 pixels. Here they work on
images of any size: radii, trails, flakes and displacements grow with the shorter side, so that an image looks equally
corrupted at any size; noise is drawn for each pixel, as in the paper. Frost is computed instead of photographed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.evaluation.robustness import blurs, weather
from imagetune.evaluation.robustness.blurs import Floats
from imagetune.recipe.sections.evaluate import Corruption

Pixels: TypeAlias = NDArray[np.uint8]
Corruptor: TypeAlias = Callable[[Floats, int, float, np.random.Generator], Floats]

REFERENCE_PIXELS = 224
SEVERITIES = (1, 2, 3, 4, 5)
EXTRA: tuple[Corruption, ...] = ("rotation", "jpeg_quality", "resolution")
"""Corruptions that are not among the paper's 15."""
COMMON: tuple[Corruption, ...] = tuple(name for name in get_args(Corruption) if name not in EXTRA)

# The paper's parameters, one for each severity.
_GAUSSIAN = (0.08, 0.12, 0.18, 0.26, 0.38)
_PHOTONS = (60, 25, 12, 5, 3)
_IMPULSES = (0.03, 0.06, 0.09, 0.17, 0.27)
_DEFOCUS = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))
_MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
_ZOOM = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
_CONTRAST = (0.4, 0.3, 0.2, 0.1, 0.05)
# Strength and smoothness of the displacement, and how far the image's corners move; in shares of 244 pixels, which the
# paper's code uses here instead of 224.
_ELASTIC = ((2.0, 0.7, 0.1), (2.0, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
_ELASTIC_PIXELS = 244
_PIXELATE = (0.6, 0.5, 0.4, 0.3, 0.25)
_COMPRESSION = (25, 18, 15, 10, 7)
ROTATION_DEGREES = (5, 10, 20, 30, 45)
JPEG_QUALITIES = (90, 70, 50, 30, 15)
RESOLUTIONS = (0.75, 0.5, 0.35, 0.25, 0.125)


def corrupt(image: Pixels, name: Corruption, severity: int, *, seed: Sequence[int] = (0,)) -> Pixels:
    """Return a corrupted copy of an image.

    The same seed draws the same noise, flakes and directions at every severity, so that severities can be compared.

    Args:
        image: (h, w, 3) uint8 RGB, of any size from 8 pixels on; it is not changed.
        name: Name of the corruption.
        severity: 1 to 5.
        seed: Non-negative numbers that seed the random generator, such as the run's seed and the image's position.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        ValueError: There is no such severity.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"there is no severity {severity}: they are {SEVERITIES}")
    # Not hash(), whose value for a text differs from process to process.
    generator = np.random.default_rng([*seed, zlib.crc32(name.encode())])
    scale = min(image.shape[:2]) / REFERENCE_PIXELS
    pixels = image.astype(np.float32) / np.float32(255)
    return _as_bytes(_CORRUPTORS[name](pixels, severity, scale, generator))


def _as_bytes(pixels: Floats) -> Pixels:
    rounded: Pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return rounded


def _gaussian_noise(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale
    noise = generator.standard_normal(pixels.shape, np.float32)
    noisy: Floats = pixels + np.float32(_GAUSSIAN[severity - 1]) * noise
    return noisy


def _shot_noise(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale
    photons = _PHOTONS[severity - 1]
    return generator.poisson(pixels * photons).astype(np.float32) / np.float32(photons)


def _impulse_noise(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale
    hit, salt = generator.random((2, *pixels.shape), np.float32)
    struck: Floats = np.where(hit < _IMPULSES[severity - 1], (salt < 0.5).astype(np.float32), pixels)
    return struck


def _defocus_blur(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del generator
    radius, softness = _DEFOCUS[severity - 1]
    return blurs.blur_defocus(pixels, radius * scale, softness * scale)


def _glass_blur(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    sigma, reach, rounds = _GLASS[severity - 1]
    return blurs.blur_glass(
        pixels, sigma=sigma * scale, reach=max(1, round(reach * scale)), rounds=rounds, generator=generator
    )


def _motion_blur(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    radius, sigma = _MOTION[severity - 1]
    degrees = generator.uniform(-45, 45)
    # ImageMagick's motion blur, which the paper uses, has a kernel of twice the radius.
    return blurs.blur_motion(pixels, length=2 * radius * scale, sigma=sigma * scale, degrees=degrees)


def _zoom_blur(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale, generator
    # Factors of enlargement are relative to the image already.
    end, step = _ZOOM[severity - 1]
    return blurs.blur_zoom(pixels, np.arange(1.0, end, step).tolist())


def _brightness(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale, generator
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + _BRIGHTNESS[severity - 1], 0, 1)
    bright: Floats = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return bright


def _contrast(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale, generator
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    pale: Floats = (pixels - mean) * np.float32(_CONTRAST[severity - 1]) + mean
    return pale


def _elastic_transform(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    strength, sigma, corners = (_ELASTIC_PIXELS * share for share in _ELASTIC[severity - 1])
    height, width = pixels.shape[:2]
    moved = _moved_corners(pixels, corners * scale, generator)
    # Drawn as for 224 pixels and enlarged with the image: smoothed noise of more pixels would be fainter.
    size = max(1, round(height / scale)), max(1, round(width / scale))
    fields = (_smooth_noise(size, sigma, generator) * np.float32(strength * scale) for _ in range(2))
    across, down = (cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR) for field in fields)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    bent: Floats = cv2.remap(
        moved, columns + across, rows + down, interpolation=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return bent


def _moved_corners(pixels: Floats, most: float, generator: np.random.Generator) -> Floats:
    """Return an image after a random affine map that moves three points around its centre by up to ``most`` pixels."""
    height, width = pixels.shape[:2]
    third, (x, y) = min(height, width) // 3, (width // 2, height // 2)
    corners = np.array([[x + third, y + third], [x + third, y - third], [x - third, y - third]], np.float32)
    there = corners + generator.uniform(-most, most, corners.shape).astype(np.float32)
    moved: Floats = cv2.warpAffine(
        pixels, cv2.getAffineTransform(corners, there), (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    return moved


def _smooth_noise(size: tuple[int, int], sigma: float, generator: np.random.Generator) -> Floats:
    """Return uniform noise (h, w) in -1..1 after a Gaussian of ``sigma`` pixels."""
    # Means of n x n pixels have 1/n of the deviation: a wide Gaussian can be had from few of them.
    coarse = max(1, int(sigma / 4))
    cells = [max(2, round(side / coarse)) for side in size]
    noise = generator.uniform(-1.0 / coarse, 1.0 / coarse, cells).astype(np.float32)
    smooth = blurs.blur_gaussian(noise, sigma / coarse)
    field: Floats = cv2.resize(smooth, size[::-1], interpolation=cv2.INTER_LINEAR)
    return field


def _pixelate(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale, generator
    return _resampled(pixels, _PIXELATE[severity - 1], cv2.INTER_NEAREST)


def _jpeg_compression(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale, generator
    return _through_jpeg(pixels, _COMPRESSION[severity - 1])


def _rotation(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    """Rotate left or right by the severity's degrees; edges are mirrored, so that no black corner shows the angle."""
    del scale
    height, width = pixels.shape[:2]
    degrees = ROTATION_DEGREES[severity - 1] * (1 if generator.random() < 0.5 else -1)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned: Floats = cv2.warpAffine(pixels, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    return turned


def _jpeg_quality(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    del scale, generator
    return _through_jpeg(pixels, JPEG_QUALITIES[severity - 1])


def _resolution(pixels: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    """Shrink to a share of each side and enlarge again bilinearly, as a small original would be."""
    del scale, generator
    return _resampled(pixels, RESOLUTIONS[severity - 1], cv2.INTER_LINEAR)


def _resampled(pixels: Floats, share: float, enlarge: int) -> Floats:
    height, width = pixels.shape[:2]
    small = max(1, int(width * share)), max(1, int(height * share))
    # Averaged by area, as by the paper's box filter: sampling single pixels would add aliasing.
    shrunk = cv2.resize(pixels, small, interpolation=cv2.INTER_AREA)
    resampled: Floats = cv2.resize(shrunk, (width, height), interpolation=enlarge)
    return resampled


def _through_jpeg(pixels: Floats, quality: int) -> Floats:
    # OpenCV expects BGR. The order matters to the loss, as JPEG keeps colour at a lower resolution than brightness.
    encoded = cv2.imencode(".jpg", _as_bytes(pixels)[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB), np.float32)
    return decoded / np.float32(255)


_CORRUPTORS: Mapping[Corruption, Corruptor] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "defocus_blur": _defocus_blur,
    "glass_blur": _glass_blur,
    "motion_blur": _motion_blur,
    "zoom_blur": _zoom_blur,
    "snow": weather.add_snow,
    "frost": weather.add_frost,
    "fog": weather.add_fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "elastic_transform": _elastic_transform,
    "pixelate": _pixelate,
    "jpeg_compression": _jpeg_compression,
    "rotation": _rotation,
    "jpeg_quality": _jpeg_quality,
    "resolution": _resolution,
}

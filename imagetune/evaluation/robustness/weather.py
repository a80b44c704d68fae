"""Weather corruptions on float images: snow, frost and fog.

Parameters are those of Hendrycks and Dietterich (ICLR 2019), for images of 224 pixels; ``scale`` is the image's shorter
side divided by 224. The paper overlays photographs of frosted panes; here the ice is computed, so that no photograph
has to be shipped.
"""

from __future__ import annotations

import cv2
import numpy as np

from imagetune.evaluation.robustness.blurs import Floats, blur_gaussian, blur_motion

# By severity: mean and deviation of the flakes' noise, their size, the threshold below which there is no flake, length
# and deviation of their trail, and the weight of the original image.
_SNOW = (
    (0.1, 0.3, 3.0, 0.5, 10.0, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12.0, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12.0, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12.0, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12.0, 12.0, 0.55),
)
# By severity: weights of the image and of the ice.
_FROST = ((1.0, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
# By severity: thickness, and the decay of finer structures.
_FOG = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
_ICE_COLOUR = np.array((0.86, 0.94, 1.0), np.float32)


def add_snow(image: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    """Return an image (h, w, 3), 0..1, with falling flakes and paler colours; not clipped."""
    mean, deviation, size, faintest, length, sigma, light = _SNOW[severity - 1]
    height, width = image.shape[:2]
    cells = [max(1, round(side / max(1.0, size * scale))) for side in (height, width)]
    grid = generator.normal(mean, deviation, cells).astype(np.float32)
    flakes = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    flakes = np.where(flakes < faintest, np.float32(0), np.clip(flakes, 0, 1))
    direction = generator.uniform(-135, -45)
    flakes = blur_motion(flakes, length=2 * length * scale, sigma=sigma * scale, degrees=direction)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None]
    # As in the paper's code: colours go towards a brightened grey, and the flakes are added again, turned by half.
    pale = light * image + (1 - light) * np.maximum(image, grey * 1.5 + 0.5)
    fallen: Floats = pale + (flakes + flakes[::-1, ::-1])[:, :, None]
    return fallen


def add_frost(image: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    """Return an image (h, w, 3), 0..1, behind a frosted pane; not clipped."""
    own, ice = _FROST[severity - 1]
    height, width = image.shape[:2]
    frosted: Floats = own * image + ice * draw_ice_texture((height, width), scale, generator)
    return frosted


def draw_ice_texture(size: tuple[int, int], scale: float, generator: np.random.Generator) -> Floats:
    """Return an icy pane (h, w, 3), 0..1: needles in patches, thicker towards the edges, with dark gaps.

    Needles are ridges of fractal noise (Musgrave in Ebert et al., Texturing and Modeling, 2003) that is stretched along
    a direction of its own in each of a few layers.

    Args:
        size: Height and width.
        scale: Shorter side by 224; structures grow with it.
        generator: Draws the pane.
    """
    height, width = size
    needles = np.zeros(size, np.float32)
    for _ in range(3):
        ridges = _ridges(size, scale, generator)
        patch = draw_fractal((height, width), 1.9, generator)
        needles = np.maximum(needles, ridges * np.clip(2.2 * patch - 0.5, 0, 1))
    rows, columns = (np.abs(np.linspace(-1, 1, side)) for side in size)
    edge = np.maximum(rows[:, None], columns[None]).astype(np.float32) ** 2
    haze = 0.30 * draw_fractal((height, width), 1.7, generator)
    strength = np.clip((0.55 + 0.75 * edge) * needles + haze * (0.5 + edge), 0, 1)
    pane: Floats = strength[:, :, None].astype(np.float32) * _ICE_COLOUR
    return pane


def add_fog(image: Floats, severity: int, scale: float, generator: np.random.Generator) -> Floats:
    """Return an image (h, w, 3), 0..1, in drifting fog."""
    del scale  # the largest drift is always as large as the image
    thickness, decay = _FOG[severity - 1]
    height, width = image.shape[:2]
    brightest = max(float(image.max()), 1e-3)
    drift = draw_fractal((height, width), decay**2, generator)[:, :, None]
    misty: Floats = (image + thickness * drift) * np.float32(brightest / (brightest + thickness))
    return misty


def draw_fractal(size: tuple[int, int], decay: float, generator: np.random.Generator) -> Floats:
    """Return clouds (h, w), 0..1, by the diamond-square algorithm (Fournier, Fussell and Carpenter, CACM 25, 1982).

    Args:
        size: Height and width.
        decay: How much fainter structures of half the size are.
        generator: Draws them.
    """
    # The diamond-square algorithm halves its square down to single pixels: the side must be a power of two.
    side = 1 << max(int(np.ceil(np.log2(max(*size, 2)))), 1)
    field = np.zeros((side, side), np.float32)
    step, strength = side, 1.0
    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        beside = corners + np.roll(corners, -1, axis=1)
        square = (beside + np.roll(beside, -1, axis=0)) / 4
        field[half::step, half::step] = square + _noise(square.shape, strength, generator)
        middle = field[half::step, half::step]
        across = corners + np.roll(corners, -1, axis=1) + middle + np.roll(middle, 1, axis=0)
        field[::step, half::step] = across / 4 + _noise(corners.shape, strength, generator)
        along = corners + np.roll(corners, -1, axis=0) + middle + np.roll(middle, 1, axis=1)
        field[half::step, ::step] = along / 4 + _noise(corners.shape, strength, generator)
        step, strength = half, strength / decay
    lowest, highest = float(field.min()), float(field.max())
    cut: Floats = (field[: size[0], : size[1]] - np.float32(lowest)) / np.float32(highest - lowest)
    return cut


def _noise(shape: tuple[int, ...], strength: float, generator: np.random.Generator) -> Floats:
    return generator.uniform(-strength, strength, shape).astype(np.float32)


def _ridges(size: tuple[int, int], scale: float, generator: np.random.Generator) -> Floats:
    """Return thin bright lines (h, w), 0..1, that lie roughly in one direction."""
    height, width = size
    # As long as the diagonal, so that the field covers the image after any turn.
    reach = int(np.ceil(np.hypot(height, width)))
    lines = np.zeros((reach, reach), np.float32)
    for across, weight in ((9.0, 0.6), (4.0, 0.4)):
        cells = [max(2, round(reach / (stretch * max(scale, 0.1)))) for stretch in (across, 7 * across)]
        grid = generator.normal(0.0, 1.0, cells).astype(np.float32)
        waves = cv2.resize(grid, (reach, reach), interpolation=cv2.INTER_CUBIC)
        lines += np.float32(weight) * np.exp(-((waves / 0.22) ** 2))
    lines = blur_gaussian(lines, max(0.6 * scale, 0.2))
    turn = cv2.getRotationMatrix2D((reach / 2, reach / 2), generator.uniform(0, 180), 1.0)
    turned = cv2.warpAffine(lines, turn, (reach, reach), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    top, left = (reach - height) // 2, (reach - width) // 2
    cut: Floats = np.clip(turned[top : top + height, left : left + width], 0, 1)
    return cut

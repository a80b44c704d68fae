"""How soon the drift of a server's images is found: ``python -m benchmarks.drift RUN``.

The run's own test images, which neither training nor the reference has seen, are predicted as they are and changed.
Streams are drawn from these predictions, with and without clean images before the change.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.decode import load_image
from imagetune.data.splits.holdout import open_holdout
from imagetune.evaluation.predict import predict_arrays
from imagetune.evaluation.robustness.blurs import blur_gaussian
from imagetune.recipe.loading import load_recipe
from imagetune.runs.open import open_run, read_run_splits
from imagetune.serving.drift.monitor import DriftMonitor
from imagetune.serving.drift.reference import DriftReference, read_drift_reference
from imagetune.serving.predictor import describe_prediction

STREAMS = 100
CLEAN = (0, 2000)
LONGEST = 1000
CLEAN_LENGTH = 10_000

Image = NDArray[np.uint8]


def blur(image: Image) -> Image:
    """Return an image blurred by a Gaussian of 3 pixels."""
    return to_pixels(blur_gaussian(image.astype(np.float32), 3.0))


def scan(image: Image) -> Image:
    """Return an image as a grey scanner with little contrast and some noise gives it."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    noise = np.random.default_rng(0).normal(0.0, 12.0, grey.shape)
    return to_pixels(np.repeat((60 + 0.6 * grey + noise)[..., None], 3, axis=2))


def draw_lines(image: Image) -> Image:
    """Return the outlines of an image, black on white."""
    edges = cv2.Canny(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 60, 120)
    return to_pixels(np.repeat(255 - edges[..., None], 3, axis=2))


def to_pixels(values: NDArray[Any]) -> Image:
    """Return values rounded to uint8."""
    pixels: Image = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels


CHANGES: dict[str, Callable[[Image], Image]] = {
    "none": lambda image: image,
    "blur, sigma 3": blur,
    "line drawings": draw_lines,
    "grey scan": scan,
    "colours inverted": lambda image: (255 - image).astype(np.uint8),
}


def measure_delay(
    reference: DriftReference, clean: list[Any], changed: list[Any], *, before: int, longest: int, seed: int
) -> tuple[bool, int | None]:
    """Return whether clean images raised an alarm, and after how many changed ones the next came; None if none did."""
    random, monitor = np.random.default_rng(seed), DriftMonitor(reference)
    monitor.observe(clean[index] for index in random.integers(0, len(clean), before))
    early = len(monitor.state.alarms)
    for seen in range(10, longest + 1, 10):
        monitor.observe(changed[index] for index in random.integers(0, len(changed), 10))
        if len(monitor.state.alarms) > early:
            return early > 0, seen
    return early > 0, None


def main() -> None:
    """Print a line for each change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a finished run folder whose images are still where they were")
    folder, loaded = open_run(str(parser.parse_args().run))
    recipe = load_recipe(folder.recipe).recipe
    records = open_holdout(read_run_splits(folder, recipe.data, loaded.class_names))
    images = [load_image(record.path, loaded.image, max_pixels=loaded.max_pixels) for record in records]
    reference = read_drift_reference(folder)
    if reference is None:
        raise SystemExit("this run has nothing to watch")
    replies = {
        name: [describe_prediction(one) for one in predict_arrays(loaded, list(map(change, images)))]
        for name, change in CHANGES.items()
    }
    print(f"{len(images)} test images, {STREAMS} streams each")
    for name, found in replies.items():
        hits = [reference.find_hits(reply) for reply in found]
        flagged, high = (np.mean([place in one for one in hits]) for place in (0, 1))
        right = np.mean([reply["label"] == record.label for reply, record in zip(found, records, strict=True)])
        print(f"{name}: accuracy {right:.2f}, flagged {flagged:.2f}, upper half {high:.2f}")
        for before in CLEAN:
            longest = CLEAN_LENGTH if name == "none" and not before else LONGEST
            delays = [
                measure_delay(reference, replies["none"], found, before=before, longest=longest, seed=seed)
                for seed in range(STREAMS)
            ]
            told = np.array([delay if delay is not None else np.inf for _, delay in delays])
            print(
                f"  after {before} clean: alarm in {np.isfinite(told).sum()} of {STREAMS}, median after "
                f"{np.median(told):g}, 95% within {np.quantile(told, 0.95, method='higher'):g}, "
                f"{(told <= 200).sum()} within 200; too early in {sum(early for early, _ in delays)}"
            )


if __name__ == "__main__":
    main()

"""What a finished run's model says of any images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagetune.data.sources.read import find_images
from imagetune.evaluation.predict import NO_DECISION_RULES, DecisionRules, ImagePrediction, predict_images
from imagetune.runs.open import open_run


def predict(run: str, paths: Sequence[str], ways: DecisionRules = NO_DECISION_RULES) -> Iterator[ImagePrediction]:
    """Yield a prediction for each image in files, folders and globs.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Of images.
        ways: What of the model's manifest is applied to its predictions.

    Raises:
        ModelFileError: It is no finished run, or its model settles nothing that ``ways`` asks for.
        DataError: There is no image.
    """
    _, loaded = open_run(run)
    yield from predict_images(loaded, find_images(paths), ways)

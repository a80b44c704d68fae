"""What a finished run's model says of any pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from imagetune.data.sources.read import find_pictures
from imagetune.evaluation.predict import PLAIN_WAYS, AnswerWays, PicturePrediction, predict_pictures
from imagetune.runs.open import open_run


def predict(run: str, paths: Sequence[str], ways: AnswerWays = PLAIN_WAYS) -> Iterator[PicturePrediction]:
    """Yield a prediction for each picture in files, folders and globs.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Of pictures.
        ways: What of the model's manifest is applied to its answers.

    Raises:
        ModelFileError: It is no finished run, or its model settles nothing that ``ways`` asks for.
        DataError: There is no picture.
    """
    _, loaded = open_run(run)
    yield from predict_pictures(loaded, find_pictures(paths), ways)

"""What MLflow runs of a logged model: encoded images in, labels and probabilities out.

MLflow copies this file into the model ("models from code") and runs it where imagetune isn't installed: it decodes and
names as the run's predict.py, which lies beside it, so that a server and `imagetune predict` answer alike.
"""

from __future__ import annotations

import base64
import io
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

BATCH_SIZE = 32


class ImageModel(PythonModel):
    """The model of a run for MLflow: a table whose column ``image`` holds image files, as bytes or in base64."""

    def load_context(self, context: Any) -> None:
        """Load model.keras, labels.json and predict.py."""
        import keras

        self._plain = runpy.run_path(context.artifacts["predict"])
        self._labels = json.loads(Path(context.artifacts["labels"]).read_text(encoding="utf-8"))
        self._model = keras.saving.load_model(context.artifacts["model"])

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return for each image its label, and the probability of each class or, for regression, the number."""
        files = list(model_input["image"])
        answers: list[dict[str, Any]] = []
        for first in range(0, len(files), BATCH_SIZE):
            images = [self._plain["load_image"](open_image(file), self._labels) for file in files[first:][:BATCH_SIZE]]
            outputs = np.asarray(self._model.predict(np.stack(images), verbose=0), np.float64)
            answers += [self._answer(row) for row in outputs]
        return answers

    def _answer(self, row: Any) -> dict[str, Any]:
        label = self._plain["name_label"](row, self._labels)
        if self._labels["task"] == "regression":
            return {"label": label, "value": float(row[0])}
        shares = {name: float(share) for name, share in zip(self._labels["class_names"], row, strict=True)}
        return {"label": label, "probabilities": shares}


def open_image(file: bytes | str) -> io.BytesIO:
    """Return the content of an image file that was given as bytes or as text in base64."""
    return io.BytesIO(base64.b64decode(file) if isinstance(file, str) else file)


set_model(ImageModel())

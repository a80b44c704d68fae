"""A run of which the tests say what it predicts, so that no model is needed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from image_predictions import READ, UNREADABLE

from imagetune.commands import predict as stream
from imagetune.commands import predict_table as table
from imagetune.model.loaded import LoadedModel
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

MODEL = LoadedModel(None, ("red", "blue"), ImageSettings(height=32, width=32), ModelConfig(), 10**6, "")


@pytest.fixture
def found(monkeypatch, tmp_path):
    """The predictions of a run; of an ensemble the same, reversed. The working folder has their images."""
    predictions = [READ, UNREADABLE]

    def predict(models, images, rules, *, start=0):
        return iter(predictions[start:] if len(models) == 1 else predictions[::-1])

    def open_runs(runs):
        return [SimpleNamespace(folder=SimpleNamespace(model=tmp_path / "run", recipe=tmp_path / "none")) for _ in runs]

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"pixels")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stream, "load_model", lambda folder: MODEL)
    for command in (stream, table):
        monkeypatch.setattr(command, "open_members", open_runs)
        monkeypatch.setattr(command, "predict_with_models", predict)
    return predictions

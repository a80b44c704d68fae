"""Predictions as a model would give them: of an image that was read, one that was not, and one with an odd name."""

from __future__ import annotations

from imagetune.evaluation.image_predictions import ImagePrediction

READ = ImagePrediction("a.png", "red", {"red": 0.75, "blue": 0.25}, None)
UNREADABLE = ImagePrediction("b.png", None, {}, "not an image")
NOT_UTF8 = ImagePrediction("caf\udce9.png", "red", {"red": 0.75, "blue": 0.25}, None)

"""Metrics of the test images, computed the same way from every row's probabilities."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# The step of float32 at 1: less can't be told from 0 in what some rows write.
LEAST = 1e-7


def score(probabilities: NDArray[np.floating], labels: NDArray[np.integer]) -> dict[str, float]:
    """Return accuracy, balanced accuracy (mean recall of the classes that there are) and log loss in nats.

    Args:
        probabilities: (images, classes), each row summing to 1.
        labels: (images,) class indices.
    """
    hits = probabilities.argmax(axis=1) == labels
    recalls = [hits[labels == label].mean() for label in np.unique(labels)]
    chosen = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), LEAST, 1.0)
    return {
        "accuracy": float(hits.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.log(chosen).mean()),
    }


def read_peer(path: Path) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """Return probabilities and labels from the file that a peer wrote: an npz with logits or probabilities."""
    with np.load(path) as arrays:
        labels = arrays["labels"].astype(np.int64)
        if "probabilities" in arrays:
            return arrays["probabilities"], labels
        logits = arrays["logits"].astype(np.float64)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True), labels


def read_run(path: Path) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """Return probabilities and labels from a run folder's table of predictions."""
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    names = header[header.index("predicted") + 1 :]
    label = header.index("label")
    probabilities = np.array([[float(cell) for cell in row[-len(names) :]] for row in rows])
    return probabilities, np.array([names.index(row[label]) for row in rows])

"""What the predictions of a server are expected to look like: shares among a run's validation images.

Watched are the share of images that are flagged as out-of-distribution (OOD), the share whose OOD score is in the upper
half, and the share of each predicted class; of numbers, that of each fifth of validation's predictions. The upper half
finds what moves all images a little: of the quickstart's drawings, blurred by a Gaussian of 3 pixels, 15% are flagged
instead of 8%, but 91% have a score in the upper half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from imagetune.core.documents import name_foreign_document
from imagetune.core.files import read_json_object, write_json
from imagetune.data.sources.labels import SINGLE_LABEL, LabelRule, build_label_rule
from imagetune.evaluation.predictions import Predictions, read_predictions
from imagetune.evaluation.statistics.order_statistics import count_scores_above
from imagetune.recipe.loading import load_recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.reader import read_evaluation
from imagetune.serving.drift.share_changes import WatchedShare

EXPORTED = "drift.json"
"""File of an export with what its run leads to expect."""
_RANGES = 5

Kind = Literal["flagged", "high_score", "class", "range"]


@dataclass(frozen=True)
class ExpectedShare:
    """A share among the predictions that is watched.

    Attributes:
        kind: Images ``flagged`` as out-of-distribution or with a ``high_score``, a ``class``, a ``range``.
        name: The class, or the range; for the others what is counted.
        watched: What the reference says of it.
    """

    kind: Kind
    name: str
    watched: WatchedShare


@dataclass(frozen=True)
class DriftReference:
    """The shares that are expected among the predictions of a server.

    Attributes:
        shares: Every share.
        rule: How labels are written.
        high_score: OOD score above which a score is in the upper half; None where there are no scores.
        edges: For numbers, the upper end of each range but the last, ascending.
    """

    shares: tuple[ExpectedShare, ...]
    rule: LabelRule = SINGLE_LABEL
    high_score: float | None = None
    edges: tuple[float, ...] = ()

    def find_hits(self, prediction: Mapping[str, Any]) -> tuple[int, ...]:
        """Return the places in ``shares`` of those that a prediction counts for.

        Args:
            prediction: As `/v1/predict` replies it: ``label``, perhaps ``value``, ``out_of_distribution``,
                ``out_of_distribution_score``.
        """
        score, number, label = prediction["out_of_distribution_score"], prediction.get("value"), prediction["label"]
        hits = self._places["flagged"] if prediction["out_of_distribution"] else ()
        if score is not None and self.high_score is not None and score > self.high_score:
            hits += self._places["high_score"]
        if number is not None:
            # A slice, as there are no ranges where validation had few images.
            chosen = int(np.searchsorted(self.edges, number))
            return hits + self._places["range"][chosen : chosen + 1]
        labels = self.rule.names(label) if label is not None else ()
        return hits + tuple(self._classes[label] for label in labels if label in self._classes)

    @cached_property
    def _places(self) -> Mapping[Kind, tuple[int, ...]]:
        kinds: tuple[Kind, ...] = ("flagged", "high_score", "class", "range")
        return {kind: tuple(at for at, share in enumerate(self.shares) if share.kind == kind) for kind in kinds}

    @cached_property
    def _classes(self) -> Mapping[str, int]:
        return {self.shares[place].name: place for place in self._places["class"]}


def read_drift_reference(folder: RunFolder, *, scored: bool = True) -> DriftReference | None:
    """Return what a finished run leads to expect of predictions; None where it has neither val.csv nor OOD scores.

    Args:
        folder: The run.
        scored: Whether the predictions will have OOD scores, as an export has them unless they differ from the run's.

    Raises:
        ModelFileError: evaluation.json isn't what imagetune writes.
        DataError: predictions/val.csv isn't.
        RecipeError: recipe.yaml can't be read.
    """
    evaluation = read_evaluation(folder.evaluation)
    path = folder.predictions("val")
    predictions = None
    if path.is_file():
        classes = evaluation.get("splits", {}).get("val", {}).get("per_class", [])
        thresholds = [found["threshold"] for found in classes if "threshold" in found]
        rule = build_label_rule(load_recipe(folder.recipe).recipe.data)
        predictions = read_predictions(path, rule=rule, thresholds=thresholds)
    return build_drift_reference(predictions, evaluation.get("out_of_distribution") if scored else None)


def write_exported_reference(reference: DriftReference, export: Path) -> None:
    """Write into an export what its run leads to expect, as the export has no validation images.

    Raises:
        ResourceError: The disk is full.
    """
    write_json(export / EXPORTED, asdict(reference))


def read_exported_reference(export: Path) -> DriftReference | None:
    """Return what the run of an export leads to expect; None where there was nothing, or an earlier version wrote it.

    Raises:
        ModelFileError: It isn't what imagetune writes.
    """
    with name_foreign_document(export / EXPORTED, "what is expected of its predictions"):
        found = read_json_object(export / EXPORTED)
        return TypeAdapter(DriftReference).validate_python(found) if found else None


def build_drift_reference(
    predictions: Predictions | None, out_of_distribution: Mapping[str, Any] | None = None
) -> DriftReference | None:
    """Return the reference that follows from a run's evaluation; None where there is nothing to watch.

    Args:
        predictions: The predictions for the validation images; None where there were none.
        out_of_distribution: That part of evaluation.json; None where the run has none.
    """
    scores, high_score = _expect_scores(out_of_distribution)
    labels, edges = ([], ()) if predictions is None or not predictions.paths else _expect_labels(predictions)
    # The allowed false alarms are shared out: as much to all labels together as to the flags and to the scores.
    parts = len(scores) + bool(labels)
    shares = [
        *(_weigh(share, 1 / parts) for share in scores),
        *(_weigh(share, 1 / parts / len(labels)) for share in labels),
    ]
    rule = SINGLE_LABEL if predictions is None else predictions.rule
    return DriftReference(tuple(shares), rule, high_score, edges) if shares else None


def _weigh(share: ExpectedShare, weight: float) -> ExpectedShare:
    return replace(share, watched=replace(share.watched, weight=weight))


def _expect_scores(found: Mapping[str, Any] | None) -> tuple[list[ExpectedShare], float | None]:
    """Return the shares of flagged images and of scores in the upper half, and where that begins.

    The threshold of the flags is an order statistic of the images that it was chosen on; the upper half begins at that
    edge of their histogram which comes nearest. More than expected is a change; less isn't, as a detector that has
    learned from all images gives lower scores than its cross-fitted ones let expect.
    """
    # Evaluations of earlier checkouts don't say what the threshold was chosen on.
    if not found or found.get("threshold") is None or "chosen_on" not in found:
        return [], None
    images, counts = found["chosen_on"]["images"], found["histogram"]["counts"]
    above = count_scores_above(images, found["share"])
    flagged = WatchedShare(above + 1, images - above, order_statistic=True, only_above=True)
    below = np.cumsum(np.sum([counts[name] for name in found["chosen_on"]["splits"] if name in counts], axis=0))
    middle = int(np.abs(below - images / 2).argmin())
    high = WatchedShare(float(images - below[middle]), float(below[middle]), only_above=True)
    shares = [
        ExpectedShare("flagged", "flagged as out-of-distribution", flagged),
        ExpectedShare("high_score", "out-of-distribution score in the upper half", high),
    ]
    return shares, float(found["histogram"]["edges"][middle + 1])


def _expect_labels(predictions: Predictions) -> tuple[list[ExpectedShare], tuple[float, ...]]:
    """Return the share of each predicted class, or of each range of numbers with the edges between them."""
    images, names, task = len(predictions.paths), predictions.class_names, predictions.rule.task
    if task == "regression":
        return _expect_ranges(predictions.probabilities[:, 0], names[0])
    several = task == "multi_label"
    counts = predictions.given.sum(axis=0) if several else np.bincount(predictions.predicted, minlength=len(names))
    return [
        ExpectedShare("class", name, WatchedShare(float(count), float(images - count)))
        for name, count in zip(names, counts.tolist(), strict=True)
    ], ()


def _expect_ranges(values: NDArray[np.float64], name: str) -> tuple[list[ExpectedShare], tuple[float, ...]]:
    """Return the share of each fifth of validation's predictions; none of few images, or of few different numbers."""
    ordered, images = np.sort(values), len(values)
    ranks = [round(part * images / _RANGES) for part in range(1, _RANGES)]
    edges = tuple(float(ordered[rank - 1]) for rank in ranks if rank)
    if len(set(edges)) < _RANGES - 1:
        return [], ()
    texts = [f"{edge:.4g}" for edge in edges]
    titles = [_name_range(name, low, high) for low, high in zip(["", *texts], [*texts, ""], strict=True)]
    # The share of new numbers between two order statistics has a beta distribution, too.
    widths = np.diff([0, *ranks, images + 1]).astype(float).tolist()
    return [
        ExpectedShare("range", title, WatchedShare(width, images + 1 - width, order_statistic=True))
        for title, width in zip(titles, widths, strict=True)
    ], edges


def _name_range(name: str, low: str, high: str) -> str:
    return " ".join([name, *(["above", low] if low else []), *(["up to", high] if high else [])])

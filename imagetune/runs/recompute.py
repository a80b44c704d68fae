"""What a run has recorded, computed again: hashes of its images and weights, its predictions and its metrics."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from imagetune.core.documents import read_document
from imagetune.core.files import compute_file_sha256
from imagetune.core.path_names import find_spelling, format_relative_path
from imagetune.core.run_documents import LOCK
from imagetune.core.text import format_count
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import read_split_rows, read_splits_csv
from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.evaluation.predictions import Predictions, read_predictions
from imagetune.model.backbones.table import get_backbone
from imagetune.model.load_weights import weights_status
from imagetune.model.manifest import load_model
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.reader import find_images_root, read_evaluation
from imagetune.run_folder.receipt import Difference
from imagetune.runs.test import predict_labelled

TOLERANCE = 1e-3
"""How far a probability may be from the recorded one: another processor or TF32 rounds otherwise, no more than this."""
SAMPLE = 32
"""How many training and how many validation images are predicted again, unless all are asked for."""
# Nine digits of a prediction are recorded, so that metrics may differ in the last of theirs.
_METRIC_TOLERANCE = 1e-6
_METRICS = ("class_names", "splits", "gaps", "power", "requirements")


@dataclass(frozen=True)
class Check:
    """What one comparison with a run's records has found.

    Attributes:
        verified: How many values hold.
        differences: Those that don't.
        unchecked: What could not be compared, and why: a sentence each.
        notes: What is not compared by design: a sentence each.
    """

    verified: int = 0
    differences: tuple[Difference, ...] = ()
    unchecked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageCheck(Check):
    """The images of a run compared with lock.json.

    Attributes:
        root: The folder that relative paths of images start at.
        intact: Paths of the images that are what they were.
    """

    root: Path = Path()
    intact: frozenset[str] = field(default=frozenset(), repr=False)


def check_images(folder: RunFolder, *, data: Path | None = None) -> ImageCheck:
    """Return which images of a run still have the content that lock.json records.

    Args:
        folder: The run folder.
        data: The folder or table where the images are now, if they have moved.

    Raises:
        ImagetuneError: The recipe or lock.json can't be read.
    """
    source = load_recipe(folder.recipe).recipe.data.source
    before = find_images_root(source)
    root = before if data is None else find_images_root(str(data.absolute()))
    recorded: Mapping[str, str] = read_document(folder.lock, LOCK).get("images", {})
    # As splits.csv has them, so that paths can be compared with those of its records.
    places = {find_spelling(str(root / format_relative_path(path, before))): sha for path, sha in recorded.items()}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = dict(zip(places, pool.map(_hash_or_none, places), strict=True))
    gone = [path for path, sha in found.items() if sha is None]
    changed = [path for path, sha in found.items() if sha is not None and sha != places[path]]
    # Both are in the order of the paths.
    differences = tuple(Difference(path, f"SHA-256 {places[path]}", str(found[path])) for path in changed)
    intact = frozenset(places.keys() - set(gone) - set(changed))
    hint = "" if data is not None else "; if they have moved, say where to with --data"
    unchecked = (f"{format_count(len(gone), 'image')} not found, such as {gone[0]}{hint}",) if gone else ()
    return ImageCheck(len(intact), differences, unchecked, root=root, intact=intact)


def _hash_or_none(path: str) -> str | None:
    try:
        return compute_file_sha256(Path(path))
    except OSError:
        return None


def check_pretrained_weights(folder: RunFolder) -> Check:
    """Return whether the file of the weights that a run started from is the one that lock.json records.

    Raises:
        ImagetuneError: The recipe or lock.json can't be read.
    """
    weights = read_document(folder.lock, LOCK).get("weights", {})
    expected, source = weights.get("sha256"), str(weights.get("source"))
    if expected is None:
        return Check(notes=("the run started from random weights, which have no file",))
    config = load_recipe(folder.recipe).recipe.model
    if not Path(source).is_file() and config.weights == "imagenet":
        # On another machine the package or Keras's cache lies elsewhere.
        source = weights_status(get_backbone(config.backbone), verify=False).path
    found = _hash_or_none(source)
    if found is None:
        return Check(unchecked=(f"the weights that the run started from are not there any more: {source}",))
    if found != expected:
        return Check(differences=(Difference(source, f"SHA-256 {expected}", found),))
    return Check(1)


def check_metrics(folder: RunFolder) -> Check:
    """Return whether the metrics in evaluation.json, with their intervals, follow from the recorded predictions.

    Texts, such as the verdict's, and analyses of features are not computed again.

    Raises:
        ImagetuneError: A file that this needs can't be read.
    """
    recipe, recorded = load_recipe(folder.recipe).recipe, read_evaluation(folder.evaluation)
    groups = {row["path"]: row["group"] or None for row in read_split_rows(folder.splits)}
    evaluations = {}
    for name in recorded["splits"]:
        predictions = _read_recorded(folder, name, recipe, recorded)
        evaluations[name] = evaluate_split(
            predictions,
            config=recipe.evaluate,
            seed=recipe.seed,
            groups=[groups.get(path) for path in predictions.paths],
        )
    document = build_evaluation_document(evaluations, config=recipe.evaluate, seen=recorded.get("seen"))
    compared = [pair for key in _METRICS for pair in _compare(key, recorded.get(key), document.get(key))]
    differences = tuple(pair for pair in compared if pair is not None)
    return Check(len(compared) - len(differences), differences)


def _read_recorded(folder: RunFolder, split: str, recipe: Recipe, recorded: Mapping[str, Any]) -> Predictions:
    classes = recorded["splits"][split].get("per_class", [])
    thresholds = [found["threshold"] for found in classes if "threshold" in found]
    read = read_predictions(folder.predictions(split), rule=build_label_rule(recipe.data), thresholds=thresholds)
    # As the model gave them: a threshold may equal one of them to the last digit.
    return replace(read, probabilities=read.probabilities.astype(np.float32).astype(np.float64))


def _compare(place: str, recorded: Any, computed: Any) -> Iterator[Difference | None]:
    """Yield None for each recorded number that is the computed one, and the difference for each that isn't."""
    if isinstance(recorded, dict) and isinstance(computed, dict):
        for key in dict.fromkeys((*recorded, *computed)):
            yield from _compare(f"{place}.{key}", recorded.get(key), computed.get(key))
    elif isinstance(recorded, list) and isinstance(computed, list) and len(recorded) == len(computed):
        for number, (one, other) in enumerate(zip(recorded, computed, strict=True)):
            yield from _compare(f"{place}[{number}]", one, other)
    # Texts say numbers in words, which may change with the version.
    elif not (isinstance(recorded, str) and isinstance(computed, str) and not place.startswith("class_names")):
        same = recorded == computed or _is_close(recorded, computed)
        yield None if same else Difference(f"evaluation.json: {place}", _show(computed), _show(recorded))


def _is_close(one: Any, other: Any) -> bool:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return numbers and math.isclose(one, other, rel_tol=_METRIC_TOLERANCE, abs_tol=_METRIC_TOLERANCE)


def _show(value: Any) -> str:
    return "nothing" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)[:60]


def check_predictions(folder: RunFolder, images: ImageCheck, *, every_image: bool = False) -> Check:
    """Return whether the recorded predictions are those that the run's model gives for its images.

    Args:
        folder: The run folder.
        images: Where its images are, and which are what they were: others are left out.
        every_image: Predict all training and validation images, too, and not only some.

    Raises:
        ImagetuneError: The model or a file that this needs can't be read.
    """
    if not (folder.model / "manifest.json").is_file():
        return Check(unchecked=("the run's model was removed, so that its predictions can't be computed again",))
    recipe, recorded = load_recipe(folder.recipe).recipe, read_evaluation(folder.evaluation)
    loaded = load_model(folder.model)
    splits = read_splits_csv(folder.splits, root=images.root, class_names=loaded.class_names)
    sides = {"train": splits.train, "val": splits.val, "test": open_holdout(splits)}
    chosen, notes = _choose(sides, recorded, every_image=every_image)
    verified, differences, left_out = 0, list[Difference](), 0
    for name, records in chosen.items():
        usable = [record for record in records if record.path in images.intact]
        left_out += len(records) - len(usable)
        if usable:
            now = predict_labelled(loaded.model, usable, loaded.class_names, recipe, thresholds=loaded.thresholds)
            found = _compare_predictions(name, now, _read_recorded(folder, name, recipe, recorded), images.root)
            differences += found
            verified += len(usable) - len(found)
    lost = f"{format_count(left_out, 'prediction')} not computed again, as the images are gone or changed"
    return Check(verified, tuple(differences), (lost,) if left_out else (), notes)


def _choose(
    sides: Mapping[str, Sequence[Record]], recorded: Mapping[str, Any], *, every_image: bool
) -> tuple[dict[str, Sequence[Record]], tuple[str, ...]]:
    """Return the images of each split to predict again, and a sentence for what is left out by design."""
    tested = "test" if "test" in recorded["splits"] else "val"
    chosen, notes = dict[str, Sequence[Record]](), []
    for name in recorded["splits"]:
        records = sides[name]
        if name == "val" and recorded.get("refit"):
            notes.append("predictions/val.csv is from before the head was solved again: its file alone is verified")
            continue
        if name != tested and not every_image and len(records) > SAMPLE:
            # Evenly over the file, in which classes come one after the other.
            chosen[name] = [records[index * len(records) // SAMPLE] for index in range(SAMPLE)]
            notes.append(f"of {len(records)} {name} predictions {SAMPLE} were computed again (--every-image: all)")
        else:
            chosen[name] = records
    return chosen, tuple(notes)


def _compare_predictions(split: str, now: Predictions, recorded: Predictions, root: Path) -> list[Difference]:
    place = {path: index for index, path in enumerate(recorded.paths)}
    # Numbers of a regression have units, by which the tolerance goes.
    scale = max(float(np.ptp(recorded.probabilities)), 1e-9) if recorded.rule.task == "regression" else 1.0
    differences = []
    for path, outputs in zip(now.paths, now.probabilities, strict=True):
        name = format_relative_path(path, root)
        where = f"predictions/{split}.csv: {name}"
        if name not in place:
            differences.append(Difference(where, "a prediction", "none"))
            continue
        before = recorded.probabilities[place[name]]
        column = int(np.abs(before - outputs).argmax())
        if not abs(before[column] - outputs[column]) <= TOLERANCE * scale:
            what = now.class_names[column]
            differences.append(Difference(where, f"{what} {outputs[column]:.4g}", f"{what} {before[column]:.4g}"))
    return differences

"""MLflow's parameters, metrics, tags and data sets, as the files of a run folder give them."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from imagetune.core import run_files
from imagetune.core.files import read_json_lines, read_json_object
from imagetune.recipe.document import parse_document
from imagetune.recipe.metrics import METRICS, is_lower_better
from imagetune.recipe.printing import list_recipe_values
from imagetune.recipe.schema import Recipe

# MLflow refuses longer names and parameters; its database holds 5000 characters of a tag.
MAX_KEY = 250
MAX_PARAMETER = 6000
MAX_TAG = 5000

_STAGE = re.compile(r"train\.stages\.\d+\.(.+)")
# These sections don't change what is trained: they would only crowd MLflow's comparison of runs.
_LEFT_OUT = ("tracking", "search", "card")
# One value each: a nested list spread over dozens of numbered parameters says nothing.
_WHOLE = ("data.augmentation", "data.classes", "evaluate.require")
_KEY_LETTERS = re.compile(r"[^\w.\- ]")
FINAL_STATES = ("FINISHED", "FAILED", "KILLED")
"""The states, by MLflow's names, of a run that has ended."""
_STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


@dataclass(frozen=True)
class Estimate:
    """A test metric with its interval; ``low`` and ``high`` are None when there is none."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ImageSet:
    """The image set of a run, which MLflow calls its data set.

    Attributes:
        name: Last part of the source's path.
        source: Path of the folder or table.
        digest: Fingerprint of the splits and of every image's content, 16 hexadecimal digits.
        counts: Images by split.
        classes: How many class names there are.
    """

    name: str
    source: str
    digest: str
    counts: Mapping[str, int]
    classes: int


def read_recipe(run_dir: Path) -> dict[str, Any]:
    """Return the resolved recipe's values as a nested mapping; empty while there is no recipe."""
    path = run_dir / run_files.RECIPE
    return parse_document(path.read_text(encoding="utf-8"), name=str(path)).root if path.exists() else {}


def convert_run_status(status: Mapping[str, Any]) -> str:
    """Return the run state in status.json by MLflow's name: RUNNING, FINISHED, FAILED or KILLED."""
    return _STATUS.get(str(status.get("state")), "RUNNING")


def read_run_state(run_dir: Path) -> str:
    """Return the run's state by MLflow's name; a run whose process is gone while it calls itself running was killed."""
    status = read_json_object(run_dir / run_files.STATUS)
    state, pid = convert_run_status(status), status.get("pid")
    return "KILLED" if state == "RUNNING" and isinstance(pid, int) and not psutil.pid_exists(pid) else state


def flatten_recipe(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return a recipe as flat MLflow parameters: ``train.stages.0.name``; a list of plain values is one text."""
    sections = {key: value for key, value in recipe.items() if key not in _LEFT_OUT}
    found: dict[str, str] = {}
    for key, value in _flatten(sections, ""):
        found[_distinguish(_key(key), found)] = _text(value)[:MAX_PARAMETER]
    return found


def _distinguish(key: str, taken: Mapping[str, str]) -> str:
    """Return a name that no other value has: keys such as the names of classes may differ in what MLflow refuses."""
    number, free = 1, key
    while free in taken:
        number += 1
        free = f"{key[: MAX_KEY - len(str(number)) - 1]}_{number}"
    return free


def list_epoch_metrics(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a metrics.jsonl line by name: ``train/loss``, ``val/f1``, ``learning_rate``."""
    found: dict[str, float] = {}
    for key in ("train", "val"):
        metrics = line.get(key) or {}
        found.update({f"{key}/{_key(name)}": value for name, value in metrics.items() if _is_finite(value)})
    for key in ("learning_rate", "images_per_second"):
        if _is_finite(line.get(key)):
            found[key] = line[key]
    return found


def list_test_metrics(evaluation: Mapping[str, Any]) -> list[Estimate]:
    """Return the test metrics of evaluation.json, the headline metrics first."""
    test = (evaluation.get("splits") or {}).get("test") or {}
    metrics = [_metric(name, entry) for name, entry in (test.get("metrics") or {}).items()]
    order = {name: place for place, name in enumerate(METRICS)}
    return sorted((metric for metric in metrics if metric), key=lambda metric: order.get(metric.name, len(order)))


def name_test_metrics(metrics: list[Estimate]) -> dict[str, float]:
    """Return the test metrics by MLflow's names: ``test/accuracy``, ``test_interval/accuracy_low`` and ``_high``.

    MLflow draws a section of charts for each prefix; the ends of the intervals would bury the metrics in theirs.
    """
    found: dict[str, float] = {}
    for metric in metrics:
        name = _key(metric.name)
        found[f"test/{name}"] = metric.value
        if metric.low is not None and metric.high is not None:
            found[f"test_interval/{name}_low"] = metric.low
            found[f"test_interval/{name}_high"] = metric.high
    return found


def list_fold_metrics(evaluation: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Return the metrics of a cross-validation for MLflow: name, value and step of each.

    ``folds/accuracy`` is the mean over the folds and ``folds_interval/accuracy_low`` and ``_high`` its corrected
    interval, at step 0; ``fold/accuracy`` has the metric of each fold at the fold's number.
    """
    folds = evaluation.get("folds") or {}
    found: list[tuple[str, Any, int]] = []
    for name, spread in (folds.get("metrics") or {}).items():
        ends = [(f"folds_interval/{_key(name)}_{end}", spread.get(end), 0) for end in ("low", "high")]
        found += [(f"folds/{_key(name)}", spread.get("mean"), 0), *ends]
    for fold in folds.get("by_fold") or ():
        found += [(f"fold/{_key(name)}", value, int(fold["fold"])) for name, value in fold["metrics"].items()]
    return [(name, float(value), step) for name, value, step in found if _is_finite(value)]


def read_image_set(run_dir: Path, recipe: Mapping[str, Any]) -> ImageSet | None:
    """Return the run's image set from splits.csv and lock.json; None while there is no splits.csv."""
    path = run_dir / run_files.SPLITS
    if not path.exists():
        return None
    content = path.read_bytes()
    rows = list(csv.DictReader(content.decode("utf-8").splitlines()))
    hashes = read_json_object(run_dir / run_files.LOCK).get("images") or {}
    # The splits too: the same images in other splits give metrics that can't be compared.
    digest = hashlib.sha256(content + json.dumps(hashes, sort_keys=True).encode())
    source = str((recipe.get("data") or {}).get("source") or "images")
    return ImageSet(
        name=Path(source).name or "images",
        source=source,
        digest=digest.hexdigest()[:16],
        counts=dict(Counter(row.get("split") or "" for row in rows)),
        classes=len(_class_names({row.get("label") or "" for row in rows}, recipe.get("data") or {})),
    )


def _class_names(labels: set[str], data: Mapping[str, Any]) -> set[str]:
    """Return the classes in labels' texts: several in each for multi_label, none for regression."""
    if data.get("task") == "regression":
        return set()
    if data.get("task") != "multi_label":
        return labels
    separator = str(data.get("label_separator") or ";")
    return {part for label in labels for part in label.split(separator)} - {""}


def read_metric_lines(run_dir: Path) -> list[dict[str, Any]]:
    """Return the complete lines of metrics.jsonl."""
    return read_json_lines(run_dir / run_files.METRICS)


def read_trial_metrics(run_dir: Path) -> list[tuple[int, dict[str, float], int]]:
    """Return the objective of each ended trial of a search and the best one so far, as metrics for MLflow.

    Returns:
        For each trial with a metric: its place among the ended trials from 1, ``trial_objective`` and
        ``best_objective``, and when it ended in milliseconds since 1970. The finalists' other seeds never make the
        best: they were not chosen by the search.
    """
    objective = str(read_json_object(run_dir / run_files.SEARCH).get("objective"))
    lower_is_better = objective in METRICS and is_lower_better(objective)
    phases: dict[str, str] = {}
    found: list[tuple[int, dict[str, float], int]] = []
    ended = 0
    best: float | None = None
    for line in read_json_lines(run_dir / run_files.JOURNAL):
        name = str(line.get("trial_id"))
        if line.get("event") == "proposed":
            phases[name] = str(line.get("phase"))
            continue
        ended += 1
        # Counted all the same: the step is the number of ended trials, failed ones included.
        if not _is_finite(line.get("objective")):
            continue
        value = float(line["objective"])
        if phases.get(name) == "search" and (best is None or (value < best) == lower_is_better):
            best = value
        metrics = {"trial_objective": value} | ({} if best is None else {"best_objective": best})
        found.append((ended, metrics, int(1000 * (line["began"] + line["seconds"]))))
    return found


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return tags with names and lengths that MLflow accepts; longer values are cut."""
    return {_key(name): str(value)[:MAX_TAG] for name, value in tags.items()}


def _flatten(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value and key not in _WHOLE:
        for name, item in value.items():
            # A class weight's key is a class name: a dot in it must not look like another level.
            yield from _flatten(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value) and key not in _WHOLE:
        for index, item in enumerate(value):
            yield from _flatten(item, f"{key}.{index}")
    else:
        yield key, value


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and not any(isinstance(item, (Mapping, list)) for item in value):
        return ", ".join(_text(item) for item in value) or "none"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (Mapping, list)) else str(value)


def _key(name: str) -> str:
    return _KEY_LETTERS.sub("_", name)[:MAX_KEY].strip() or "_"


def _metric(name: str, entry: Any) -> Estimate | None:
    if _is_finite(entry):
        return Estimate(name, float(entry), None, None)
    if not isinstance(entry, Mapping) or not _is_finite(entry.get("value")):
        return None
    low, high = entry.get("low"), entry.get("high")
    both = _is_finite(low) and _is_finite(high)
    return Estimate(name, float(entry["value"]), low if both else None, high if both else None)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def sort_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return a run's parameters with those that differ from the defaults first, both in the recipe's order."""
    return dict(sorted(parameters.items(), key=lambda item: _read_default(item[0]) == item[1]))


def _read_default(name: str) -> str | None:
    """Return the default of a parameter, for each stage that of any stage; None for what has to be set."""
    stage = _STAGE.fullmatch(name)
    key = f"train.stages.0.{stage[1]}" if stage else name
    return None if stage and stage[1] in ("name", "epochs", "learning_rate") else _list_defaults().get(key)


@cache
def _list_defaults() -> dict[str, str]:
    stage = {"name": "stage", "epochs": 1, "learning_rate": "auto"}
    recipe = Recipe.model_validate({"data": {"source": "images"}, "train": {"stages": [stage]}})
    return {name: value for name, value in flatten_recipe(list_recipe_values(recipe)).items() if name != "data.source"}

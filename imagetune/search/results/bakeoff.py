"""Result of a bake-off: each backbone's probe, latency and size, and the fine-tunings of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, nan
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from imagetune.core import run_files
from imagetune.core.csv_tables import write_csv
from imagetune.errors import RecipeError
from imagetune.evaluation.cross_validation import estimate_fold_mean
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.metrics import TASK_METRICS
from imagetune.recipe.problems import format_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace
from imagetune.search.proposers.bakeoff import BACKBONE_PATHS, OTHER_PATHS
from imagetune.search.proposers.finalists import Direction
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.axes import format_value
from imagetune.search.results.pareto import find_pareto_front
from imagetune.search.trial_process.probe_file import read_probe

_COLUMNS = (
    *("trial", "backbone", "weights", "image_size", "status", "probe", "low", "high"),
    *("to_best", "to_best_low", "to_best_high", "ms_alone", "ms_in_batch", "megabytes", "parameters", "features"),
    *("front", "fine_tuned", "trainings", "place", "error"),
)


@dataclass(frozen=True)
class BackboneResult:
    """Result of one backbone of a bake-off.

    Attributes:
        result: Result of its probe's trial.
        name: Name of the backbone, with weights and image size where backbones differ in those.
        probe: Content of probe.json; None for a failed probe, and where the file is gone.
        difference: Mean over the folds of its metric minus the best backbone's, with the ends of its interval; None for
            the best and for failed ones.
        front: Whether it is on the Pareto front of metric, latency and size.
        fine_tuned: Validation metric of each fine-tuning.
        tuning_error: Error of a fine-tuning that failed.
    """

    result: TrialResult
    name: str
    probe: Mapping[str, Any] | None
    difference: tuple[float, float, float] | None = None
    front: bool = False
    fine_tuned: tuple[float, ...] = ()
    tuning_error: str = ""

    @property
    def tuned(self) -> float | None:
        """Mean validation metric of its fine-tunings."""
        return fmean(self.fine_tuned) if self.fine_tuned else None

    @property
    def milliseconds(self) -> float:
        """Latency of one image; infinite for a probe without probe.json."""
        return inf if self.probe is None else float(self.probe["cost"]["milliseconds_one"]["value"])

    @property
    def megabytes(self) -> float:
        """Size of the weights; infinite for a probe without probe.json."""
        return inf if self.probe is None else float(self.probe["cost"]["megabytes"])

    @property
    def metrics_by_fold(self) -> tuple[float, ...]:
        """The objective in each fold of its probe."""
        probe = self.probe or {"folds": ()}
        return tuple(float(fold["metrics"][probe["objective"]]) for fold in probe["folds"])

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval of its probe; the value twice where all folds agree, which have no interval."""
        probe = self.probe or {"value": nan, "low": nan, "high": nan}
        return (probe["value"],) * 2 if probe["low"] is None else (probe["low"], probe["high"])

    def mean_of(self, metric: str) -> float:
        """Return the mean of another validation metric over the folds of its probe; NaN where it has none."""
        folds = (self.probe or {"folds": ()})["folds"]
        return fmean(fold["metrics"].get(metric, nan) for fold in folds) if folds else nan

    @property
    def lost(self) -> bool:
        """Whether its probe has a metric, and probe.json with the rest is gone."""
        return self.probe is None and self.result.objective is not None


def check_bakeoff(loaded: LoadedRecipe) -> None:
    """Check that a recipe's search spaces are those of a bake-off.

    Raises:
        RecipeError: Something besides backbone, weights and image size is a space, or the backbone is not.
    """
    allowed = ", ".join(format_path(path) for path in (*BACKBONE_PATHS, *OTHER_PATHS))
    for path, space in loaded.spaces.items():
        if path not in (*BACKBONE_PATHS, *OTHER_PATHS):
            hint = f"give it a value, or search it with another algorithm; a bake-off varies {allowed}"
            raise loaded.error(path, "a bake-off compares backbones, everything else being equal", hint=hint)
        if not isinstance(space, (ChoiceSpace, IntSpace)):
            raise loaded.error(
                path, "a bake-off needs values to choose from", hint="use {search: choice, values: [...]}"
            )
    if not set(BACKBONE_PATHS).intersection(loaded.spaces):
        hint = "such as model.backbone: {search: choice, values: [efficientnet_lite0, resnet50]}"
        raise RecipeError("a bake-off needs backbones to choose from", where=loaded.document.name, hint=hint)


def rank_backbones(folder: Path, results: Sequence[TrialResult], direction: Direction) -> list[BackboneResult]:
    """Return the results of a bake-off's backbones, the best probe first and the failed ones last.

    Args:
        folder: Run folder of the search.
        results: Results of all trials.
        direction: Whether a smaller or a larger metric is better.
    """
    probed = [result for result in results if result.trial.phase == "search"]
    folders = [run_files.trial_folder(folder, result.trial.trial_id) for result in probed]
    found = [(result, read_probe(place)) for result, place in zip(probed, folders, strict=True)]
    sign = 1.0 if direction == "min" else -1.0
    good = [(result, probe) for result, probe in found if result.objective is not None and probe is not None]
    good.sort(key=lambda one: sign * float(one[1]["value"]))
    names = _names([probe for _, probe in good])
    rows = [BackboneResult(result, name, probe) for (result, probe), name in zip(good, names, strict=True)]
    rows = _mark_front(rows, direction)
    rows = [replace(row, difference=_compute_difference(row, rows[0], count=len(rows) - 1)) for row in rows]
    rows += [
        # Also a probe whose file is gone: the journal still has its objective.
        BackboneResult(result, _describe_values(result.trial), None)
        for result, probe in found
        if result.objective is None or not probe
    ]
    return [_add_fine_tunings(row, results) for row in rows]


def find_deciding_metric(recipe: Recipe) -> str | None:
    """Return the metric by which runs of the recipe's task are compared, where the probes' objective is another one."""
    decides = TASK_METRICS[recipe.data.task].decides
    return decides if decides != recipe.search.objective else None


def write_bakeoff(folder: Path, rows: Sequence[BackboneResult]) -> None:
    """Write ``bakeoff.csv``, with a line for each backbone.

    Raises:
        ResourceError: The disk is full.
    """
    cells = (_cells(row) for row in rows)
    lines = ([row.get(column, "") for column in _COLUMNS] for row in cells)
    write_csv(folder / run_files.BAKEOFF_TABLE, _COLUMNS, lines)


def _names(probes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a short name for each probe, with weights and image size only where probes differ in them."""
    several = {key: len({str(probe[key]) for probe in probes}) > 1 for key in ("weights", "image_size")}
    named = []
    for probe in probes:
        height, width = probe["image_size"]
        size = f"{height}" if height == width else f"{height}x{width}"
        more = [Path(probe["weights"]).name] if several["weights"] else []
        more += [size] if several["image_size"] else []
        named.append(f"{probe['backbone']} ({', '.join(more)})" if more else str(probe["backbone"]))
    return named


def _describe_values(trial: Trial) -> str:
    """Return the settings of a probe that has left no probe.json, in words."""
    return ", ".join(format_value(value) for value in trial.values.values())


def _mark_front(rows: Sequence[BackboneResult], direction: Direction) -> list[BackboneResult]:
    probes = [row.probe for row in rows if row.probe is not None]
    if not probes:
        return []
    costs = [[row.milliseconds, row.megabytes] for row in rows]
    front = find_pareto_front([probe["value"] for probe in probes], costs, larger_is_better=direction == "max")
    return [replace(row, front=on) for row, on in zip(rows, front, strict=True)]


def _compute_difference(row: BackboneResult, best: BackboneResult, *, count: int) -> tuple[float, float, float] | None:
    """Return a probe's mean difference to the best one, with Nadeau and Bengio's interval (Bonferroni-corrected)."""
    if row is best or row.probe is None or best.probe is None:
        return None
    # By fold: all probes share their folds, and the difference of a fold has less spread than the folds themselves.
    own, other = (np.array(one.metrics_by_fold, np.float64) for one in (row, best))
    # Bonferroni's correction, for every backbone that is compared with the best.
    confidence = 1 - (1 - row.probe["confidence"]) / max(count, 1)
    found = estimate_fold_mean(own - other, left_out=row.probe["left_out_ratio"], confidence=confidence)
    return float(found.value or 0.0), float(found.low or 0.0), float(found.high or 0.0)


def _add_fine_tunings(row: BackboneResult, results: Sequence[TrialResult]) -> BackboneResult:
    # Fine-tunings are named after their probe, `003-1` after `003`.
    prefix = f"{row.result.trial.trial_id}-"
    own = [result for result in results if result.trial.phase == "final" and result.trial.trial_id.startswith(prefix)]
    metrics = tuple(result.objective for result in own if result.objective is not None)
    return replace(row, fine_tuned=metrics, tuning_error=next((result.error for result in own if result.error), ""))


def _cells(row: BackboneResult) -> dict[str, object]:
    cells: dict[str, object] = {
        "trial": row.result.trial.trial_id,
        "backbone": row.name,
        "status": row.result.status,
        "front": int(row.front),
        "fine_tuned": "" if row.tuned is None else repr(row.tuned),
        "trainings": len(row.fine_tuned),
        "place": row.result.place,
        "error": row.result.error or row.tuning_error,
    }
    if row.difference is not None:
        names = ("to_best", "to_best_low", "to_best_high")
        cells |= {name: repr(value) for name, value in zip(names, row.difference, strict=True)}
    if row.probe is None:
        return cells | ({"probe": repr(row.result.objective)} if row.lost else {})
    probe, cost = row.probe, row.probe["cost"]
    return cells | {
        "backbone": probe["backbone"],
        "weights": probe["weights"],
        "image_size": "x".join(str(side) for side in probe["image_size"]),
        **{
            name: repr(end)
            for name, end in (("probe", probe["value"]), ("low", probe["low"]), ("high", probe["high"]))
            if end is not None
        },
        "ms_alone": f"{cost['milliseconds_one']['value']:.4f}",
        "ms_in_batch": f"{cost['milliseconds_batch']['value']:.4f}",
        **{name: cost[name] for name in ("megabytes", "parameters")},
        "features": probe["features"],
    }

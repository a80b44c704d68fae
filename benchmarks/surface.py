"""A recorded surface: validation metrics of real trainings on a grid of settings, interpolated between its points."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.interpolate import RegularGridInterpolator

from imagetune.recipe.document import NodePath
from imagetune.recipe.sections.search import ChoiceSpace, LogUniformSpace, Space, UniformSpace, Value

# The levels that were trained, the last factor turning fastest.
FACTORS: Mapping[str, tuple[float, ...] | tuple[int, ...] | tuple[str, ...]] = {
    "optimizer": ("adamw", "sgd", "rmsprop"),
    "batch_size": (8, 64),
    "dropout": (0.0, 0.6),
    "label_smoothing": (0.0, 0.3),
    "learning_rate": (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1),
}
METRICS = ("loss", "f1")
COLUMNS = (*FACTORS, *METRICS)
Setting = tuple[float | int | str, ...]

PATHS: Mapping[str, NodePath] = {
    "optimizer": ("train", "optimizer"),
    "batch_size": ("train", "batch_size"),
    "dropout": ("model", "head", "dropout"),
    "label_smoothing": ("train", "label_smoothing"),
    "learning_rate": ("train", "stages", 0, "learning_rate"),
}
RECORDED = Path(__file__).parent / "surfaces" / "linear_probe.csv"


@dataclass(frozen=True)
class Surface:
    """A metric as a function of settings of its spaces.

    Attributes:
        path: The table of ``record_surface.py``.
        metric: One of ``METRICS``.
    """

    path: Path
    metric: str

    @cached_property
    def spaces(self) -> dict[NodePath, Space]:
        """What may be searched: the optimizer only where the grid of more than one is complete."""
        spaces: dict[NodePath, Space] = {
            PATHS["learning_rate"]: LogUniformSpace(search="log_uniform", low=1e-4, high=1e-1, default=3e-3),
            PATHS["batch_size"]: ChoiceSpace(search="choice", values=(8, 64), default=64),
            PATHS["dropout"]: UniformSpace(search="uniform", low=0.0, high=0.6, default=0.2),
            PATHS["label_smoothing"]: UniformSpace(search="uniform", low=0.0, high=0.3, default=0.0),
        }
        if len(self.optimizers) > 1:
            spaces[PATHS["optimizer"]] = ChoiceSpace(search="choice", values=self.optimizers)
        return spaces

    @cached_property
    def optimizers(self) -> tuple[str, ...]:
        """Those with which every setting was trained."""
        rest = list(itertools.product(*list(FACTORS.values())[1:]))
        names = [str(name) for name in FACTORS["optimizer"]]
        return tuple(name for name in names if all((name, *setting) in self._metrics for setting in rest))

    @property
    def sign(self) -> float:
        """1 where a larger metric is better, else -1."""
        return -1.0 if self.metric == "loss" else 1.0

    @property
    def best(self) -> float:
        """The best metric anywhere; between points of the grid there is none better."""
        found = [metric for setting, metric in self._metrics.items() if setting[0] in self.optimizers]
        return self.sign * max(self.sign * metric for metric in found)

    def __call__(self, values: Mapping[NodePath, Value]) -> float:
        """Return the metric of a setting: that of a training, or between those next to it.

        Args:
            values: A value for every space; the learning rate counts by its logarithm.
        """
        named = {name: values.get(path, self.optimizers[0]) for name, path in PATHS.items()}
        surface = self._surfaces[str(named["optimizer"]), int(str(named["batch_size"]))]
        place = [float(str(named[name])) for name in ("dropout", "label_smoothing", "learning_rate")]
        return float(surface([[*place[:2], math.log10(place[2])]])[0])

    @cached_property
    def _metrics(self) -> dict[Setting, float]:
        with self.path.open(newline="", encoding="utf-8") as file:
            return {
                tuple(type(levels[0])(row[name]) for name, levels in FACTORS.items()): float(row[self.metric])
                for row in csv.DictReader(file)
            }

    @cached_property
    def _surfaces(self) -> dict[tuple[str, int], RegularGridInterpolator]:
        inner: list[list[float]] = [
            [float(level) for level in FACTORS[name]] for name in ("dropout", "label_smoothing", "learning_rate")
        ]
        # The ends of the range are powers of ten; what lies between was trained at three digits.
        places = [np.array(inner[0]), np.array(inner[1]), np.log10(np.array(inner[2]))]
        found = {}
        for optimizer in self.optimizers:
            for batch in FACTORS["batch_size"]:
                table = [self._metrics[optimizer, batch, *point] for point in itertools.product(*inner)]
                shaped = np.array(table).reshape([len(levels) for levels in inner])
                found[optimizer, int(batch)] = RegularGridInterpolator(places, shaped)
        return found

"""Reads the folder of a search for its report: whatever is there, in whatever state the search ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.errors import ModelFileError
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.problems import dotted
from imagetune.recipe.schema import Recipe
from imagetune.recipe.search import Value
from imagetune.run_folder.reader import read_epochs, read_json
from imagetune.search.proposers.bakeoff import compared_by
from imagetune.search.proposers.finalists import Candidate, Direction, direction_of, ranking
from imagetune.search.records.axes import Axis, axes_of, short_names
from imagetune.search.records.importance import Analysis, Observation, analyse
from imagetune.search.records.journal import Event, Journal, Proposed, results_of, unfinished
from imagetune.search.records.table import values_key
from imagetune.search.records.trial import Trial, TrialResult

# Hyperband grants settings several numbers of epochs.
EPOCHS = "epochs"


@dataclass(frozen=True)
class SearchFiles:
    """The files of a search; what it never wrote is empty.

    Attributes:
        folder: The search's run folder.
        recipe: Its resolved recipe, spaces at their defaults.
        description: search.json.
        status: status.json.
        tracking: tracking.json.
        events: The journal.
        best_text: best.yaml as it stands in the file.
        evaluation: evaluation.json of the winner's run.
    """

    folder: Path
    recipe: Recipe
    description: Mapping[str, Any]
    status: Mapping[str, Any]
    tracking: Mapping[str, Any]
    events: tuple[Event, ...]
    best_text: str
    evaluation: Mapping[str, Any]

    @property
    def algorithm(self) -> str:
        """How the search proposes."""
        return str(self.description.get("algorithm", self.recipe.search.algorithm))

    @property
    def objective(self) -> str:
        """The validation metric that is optimised."""
        return str(self.description.get("objective", self.recipe.search.objective))

    @property
    def direction(self) -> Direction:
        """Whether a smaller or a larger metric is better."""
        return direction_of(self.objective)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The spaces."""
        return axes_of(self.description)

    @cached_property
    def short(self) -> Mapping[str, str]:
        """A short name for each space, by its dotted path."""
        return short_names([axis.name for axis in self.axes], [stage.name for stage in self.recipe.train.stages])

    @cached_property
    def results(self) -> tuple[TrialResult, ...]:
        """How the trials ended that have, in that order."""
        return tuple(results_of(self.events))

    @cached_property
    def searched(self) -> tuple[TrialResult, ...]:
        """Those of the search itself, repeats of finalists left out."""
        return tuple(result for result in self.results if result.trial.phase == "search")

    @cached_property
    def open(self) -> tuple[Trial, ...]:
        """The trials that were proposed and haven't ended."""
        return tuple(unfinished(self.events))

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in the order of their proposals."""
        return tuple(event.trial for event in self.events if isinstance(event, Proposed))

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The settings that have a metric, the winner first."""
        return tuple(ranking(compared_by(self.results, self.algorithm), self.direction))

    @cached_property
    def curves(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Lines of metrics.jsonl of each trial that has some.

        Raises:
            ModelFileError: One is corrupted.
        """
        names = [trial.trial_id for trial in self.trials]
        found = {name: read_epochs(self.folder_of(name) / run_files.METRICS) for name in names}
        return {name: lines for name, lines in found.items() if lines}

    @cached_property
    def analysis(self) -> Analysis | None:
        """What the trials say about the spaces; None where that is nothing."""
        epochs = sorted({trial.epochs for trial in self.trials if trial.epochs})
        axes = [*self.axes, Axis(EPOCHS, "choice", values=tuple(epochs))] if len(epochs) > 1 else self.axes
        return analyse(axes, self.observations)

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """The trials that importance is learned from; those of hyperband have their epochs as one more space."""
        return tuple(
            Observation(
                {
                    **self.settings(result.trial.values),
                    **({EPOCHS: result.trial.epochs} if result.trial.epochs else {}),
                },
                result.objective,
                values_key(result.trial.values),
            )
            for result in self.results
            if result.objective is not None and result.status in ("completed", "stopped")
        )

    @property
    def sign(self) -> float:
        """1 where a larger objective is better, else -1."""
        return 1.0 if self.direction == "max" else -1.0

    def metric(self, value: float | None) -> str:
        """Return an objective as text; a dash for none."""
        return "-" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"

    def amount(self, value: float, *, signed: bool = True) -> str:
        """Return a difference or a spread of objectives as text."""
        text = f"{abs(value):.4f}" if abs(value) < 10 else f"{abs(value):.4g}"
        return f"-{text}" if signed and value < 0 and float(text) else text

    def folder_of(self, trial_id: str) -> Path:
        """Return the run folder of a trial."""
        return self.folder / run_files.TRIALS / run_files.trial_folder_name(trial_id)

    def settings(self, values: Mapping[NodePath, Value]) -> dict[str, Value]:
        """Return the values of a trial by dotted path."""
        return {dotted(path): value for path, value in values.items()}


def read_search(folder: Path) -> SearchFiles:
    """Read the folder of a search, without changing anything in it.

    Raises:
        ModelFileError: It is no search's folder, or a JSON file in it is corrupted.
        RecipeError: Its recipe can't be read.
        CheckpointError: Its journal can't be read.
    """
    folder = folder.absolute()
    if not (folder / run_files.SEARCH).is_file() or not (folder / run_files.RECIPE).is_file():
        hint = "give the folder of a search, such as runs/NAME-TIME-ID"
        raise ModelFileError(
            f"is not the folder of a search: it has no {run_files.SEARCH}", where=str(folder), hint=hint
        )
    best = folder / run_files.BEST_RECIPE
    return SearchFiles(
        folder=folder,
        recipe=load_recipe(folder / run_files.RECIPE).recipe,
        description=read_json(folder / run_files.SEARCH),
        status=read_json(folder / run_files.STATUS),
        tracking=read_json(folder / run_files.TRACKING),
        events=tuple(Journal(folder / run_files.JOURNAL).read(repair=False)),
        best_text=best.read_text(encoding="utf-8") if best.is_file() else "",
        evaluation=read_json(folder / run_files.BEST / run_files.EVALUATION),
    )

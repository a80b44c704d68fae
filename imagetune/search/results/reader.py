"""Reader of a search's folder for its report, in whatever state the search ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from imagetune.core import run_documents as shapes
from imagetune.core import run_files
from imagetune.core.documents import read_document
from imagetune.errors import ModelFileError
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.metrics import name_metric
from imagetune.recipe.problems import format_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import Value
from imagetune.run_folder.folder import refuse_links_out
from imagetune.run_folder.reader import read_epochs, read_evaluation
from imagetune.search.proposers.bakeoff import select_compared
from imagetune.search.proposers.finalists import Candidate, Direction, get_direction, rank_candidates
from imagetune.search.records.journal import Event, Journal, Proposed, find_unfinished, list_results
from imagetune.search.records.table import build_values_key
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.axes import Axis, read_axes, shorten_names
from imagetune.search.results.importance import Analysis, Observation, analyse

# Name of one more axis: hyperband trains settings for several numbers of epochs.
EPOCHS = "epochs"


@dataclass(frozen=True)
class SearchFiles:
    """Content of a search's folder and what follows from it; files that don't exist are empty.

    Attributes:
        folder: Run folder of the search.
        recipe: Its resolved recipe, spaces at their defaults.
        description: Content of search.json.
        status: Content of status.json.
        tracking: Content of tracking.json.
        events: Events of the journal.
        best_text: Text of best.yaml.
        evaluation: Content of the winner's evaluation.json.
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
        """Name of the search algorithm."""
        return str(self.description.get("algorithm", self.recipe.search.algorithm))

    @property
    def objective(self) -> str:
        """Name of the validation metric that is optimised."""
        return str(self.description.get("objective", self.recipe.search.objective))

    @property
    def objective_name(self) -> str:
        """Its name within a sentence: ``F1`` for ``f1``."""
        return name_metric(self.objective)

    @property
    def direction(self) -> Direction:
        """Whether a smaller or a larger metric is better."""
        return get_direction(self.objective)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The search spaces as axes."""
        return read_axes(self.description)

    @cached_property
    def short(self) -> Mapping[str, str]:
        """A short name for each space, by its dotted path."""
        return shorten_names([axis.name for axis in self.axes], [stage.name for stage in self.recipe.train.stages])

    @cached_property
    def results(self) -> tuple[TrialResult, ...]:
        """Results of the ended trials, in the order in which they ended."""
        return tuple(list_results(self.events))

    @cached_property
    def searched(self) -> tuple[TrialResult, ...]:
        """Results of the search algorithm's own trials, without the finalists' repeats."""
        return tuple(result for result in self.results if result.trial.phase == "search")

    @cached_property
    def open(self) -> tuple[Trial, ...]:
        """Trials that were proposed and haven't ended."""
        return tuple(find_unfinished(self.events))

    @cached_property
    def trials(self) -> tuple[Trial, ...]:
        """All trials, in the order of their proposals."""
        return tuple(event.trial for event in self.events if isinstance(event, Proposed))

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The settings that have a metric, the winner first."""
        return tuple(rank_candidates(select_compared(self.results, self.algorithm), self.direction))

    @cached_property
    def curves(self) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Learning curves: the lines of metrics.jsonl of each trial that has some, by trial.

        Raises:
            ModelFileError: One is corrupted.
        """
        names = [trial.trial_id for trial in self.trials]
        found = {name: read_epochs(self.folder_of(name) / run_files.METRICS) for name in names}
        return {name: lines for name, lines in found.items() if lines}

    @cached_property
    def analysis(self) -> Analysis | None:
        """Importance and effect of each space; None where there are too few trials."""
        epochs = sorted({trial.epochs for trial in self.trials if trial.epochs})
        axes = [*self.axes, Axis(EPOCHS, "choice", values=tuple(epochs))] if len(epochs) > 1 else self.axes
        return analyse(axes, self.observations)

    @cached_property
    def observations(self) -> tuple[Observation, ...]:
        """Trials for the analysis of importance; hyperband's have their number of epochs as one more value."""
        return tuple(
            Observation(
                {
                    **self.settings(result.trial.values),
                    **({EPOCHS: result.trial.epochs} if result.trial.epochs else {}),
                },
                result.objective,
                build_values_key(result.trial.values),
            )
            for result in self.results
            # A repeated trial has no training of its own, and would count one result twice.
            if result.objective is not None and result.status in ("completed", "stopped")
        )

    @property
    def sign(self) -> float:
        """1 where a larger objective is better, else -1."""
        return 1.0 if self.direction == "max" else -1.0

    def metric(self, value: float | None) -> str:
        """Return an objective as text with four decimals; a dash for None."""
        return "-" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.5g}"

    def amount(self, value: float, *, signed: bool = True) -> str:
        """Return a difference or a spread of objectives as text."""
        text = f"{abs(value):.4f}" if abs(value) < 10 else f"{abs(value):.4g}"
        return f"-{text}" if signed and value < 0 and float(text) else text

    def folder_of(self, trial_id: str) -> Path:
        """Return the run folder of a trial."""
        return run_files.trial_folder(self.folder, trial_id)

    def settings(self, values: Mapping[NodePath, Value]) -> dict[str, Value]:
        """Return the values of a trial by dotted path."""
        return {format_path(path): value for path, value in values.items()}


def read_search(folder: Path) -> SearchFiles:
    """Read the folder of a search, without changing anything in it.

    Raises:
        ModelFileError: It is not the folder of a search, or a JSON file in it is corrupted.
        RecipeError: Its recipe can't be read.
        CheckpointError: Its journal can't be read.
    """
    folder = folder.absolute()
    if not (folder / run_files.SEARCH).is_file() or not (folder / run_files.RECIPE).is_file():
        hint = "give the folder of a search, such as runs/NAME-TIME-ID"
        raise ModelFileError(
            f"is not the folder of a search: it has no {run_files.SEARCH}", where=str(folder), hint=hint
        )
    refuse_links_out(folder)
    best = folder / run_files.BEST_RECIPE
    return SearchFiles(
        folder=folder,
        recipe=load_recipe(folder / run_files.RECIPE).recipe,
        description=read_document(folder / run_files.SEARCH, shapes.SEARCH),
        status=read_document(folder / run_files.STATUS, shapes.STATUS),
        tracking=read_document(folder / run_files.TRACKING, shapes.TRACKING),
        # Without repair: the search may be running, and its next event belongs behind the bytes that are there.
        events=tuple(Journal(folder / run_files.JOURNAL).read(repair=False)),
        best_text=best.read_text(encoding="utf-8") if best.is_file() else "",
        evaluation=read_evaluation(folder / run_files.BEST / run_files.EVALUATION),
    )

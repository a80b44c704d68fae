"""Warm start of a search: trials of earlier searches of the same images, reported to the oracle before it proposes.

A trial is reused where fitting its recipe now would be the same training but for the seed: every space of the present
search contains the value that it had, and everything else in the recipe is as it was. Reused trials are kept in the
search's own folder, so that a resumed search repeats its proposals whatever has become of the earlier ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.core.documents import SURPRISES, read_document
from imagetune.core.files import read_json, write_json
from imagetune.core.messages import Say
from imagetune.core.run_documents import SEARCH
from imagetune.errors import CheckpointError, RecipeError
from imagetune.recipe.conditions import is_active, sort_by_conditions
from imagetune.recipe.document import NodePath, get_value
from imagetune.recipe.loading import LoadedRecipe, load_recipe
from imagetune.recipe.printing import flatten_values, list_recipe_values
from imagetune.recipe.problems import format_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import ChoiceSpace, Value
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import Data
from imagetune.runs.same_inputs import Image, list_present_images, read_recorded_images
from imagetune.search.proposers.finalists import Candidate, get_direction, rank_candidates
from imagetune.search.records.journal import Journal, list_results
from imagetune.search.records.trial import Known
from imagetune.search.resume import may_change
from imagetune.search.space import is_setting
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run

_ORACLES = ("random", "grid", "bayesian", "hyperband")
_AT: NodePath = ("search", "warm_start")
_ABSENT = object()


@dataclass(frozen=True)
class WarmStart:
    """Trials of earlier searches that a search begins with.

    Attributes:
        sources: The earlier searches, as the recipe names them.
        known: Their settings with objectives.
    """

    sources: tuple[str, ...] = ()
    known: tuple[Known, ...] = ()


@dataclass
class _Matcher:
    """Matches earlier trainings to settings of the present search spaces.

    Attributes:
        loaded: The present recipe and its spaces.
        offered: Each choice's values with their form in a complete recipe, by path; filled when needed.
    """

    loaded: LoadedRecipe
    offered: dict[NodePath, list[tuple[Value, Any]]] = field(default_factory=dict)

    def match(self, earlier: Recipe, searched: Mapping[NodePath, Value]) -> dict[NodePath, Value] | str:
        """Return the present setting that an earlier training had, or in words why it had none.

        Args:
            earlier: Complete recipe of the training.
            searched: The values that the earlier search had proposed.
        """
        spaces, was = self.loaded.spaces, list_recipe_values(earlier)
        values: dict[NodePath, Value] = {}
        for path in sort_by_conditions(spaces):
            if not is_active(spaces, path, values):
                continue
            value = searched[path] if path in searched else self._find_value(path, was)
            # Without its condition, which names spaces that aren't among these alone.
            if not is_setting({path: spaces[path].model_copy(update={"when": {}})}, {path: value}):
                return f"{format_path(path)} was {_format_value(value)}, which isn't among the values searched"
            values[path] = value
        return self._difference(values, was) or {path: values[path] for path in spaces if path in values}

    def _find_value(self, path: NodePath, was: Mapping[str, Any]) -> Any:
        """Return the value at a path that the earlier search didn't vary, in the form that the choice has it."""
        found, space = get_value(was, path), self.loaded.spaces[path]
        if not isinstance(space, ChoiceSpace):
            return found
        if path not in self.offered:
            self.offered[path] = [(value, self._complete(path, value)) for value in space.values]
        # A choice may hold an abbreviation, such as `adamw`, which a complete recipe writes as a section.
        return next((value for value, complete in self.offered[path] if complete == found), found)

    def _complete(self, path: NodePath, value: Value) -> Any:
        return get_value(list_recipe_values(self.loaded.with_values({path: value}).recipe), path)

    def _difference(self, values: Mapping[NodePath, Value], was: Mapping[str, Any]) -> str:
        now = dict(flatten_values(list_recipe_values(self.loaded.with_values(values).recipe)))
        then = dict(flatten_values(was))
        for key in [*now, *(key for key in then if key not in now)]:
            before, after = then.get(key, _ABSENT), now.get(key, _ABSENT)
            # The seed may differ: a setting's metric with another seed is as good an observation.
            if key != "seed" and not may_change(key) and before != after:
                return f"{key} was {_format_value(before)}, now it is {_format_value(after)}"
        return ""


def load_warm_start(loaded: LoadedRecipe, data: Data, *, resumed: Path | None, say: Say) -> WarmStart:
    """Return the warm start of a search: read from the earlier searches, or on resuming from its own folder.

    Args:
        loaded: The recipe and its spaces.
        data: The images of this search.
        resumed: Folder of the search that is resumed; None for a new one.
        say: Prints how many trials are reused.

    Raises:
        RecipeError: A search of another objective, other images or other splits, or none of whose trials fits.
        CheckpointError: A folder without a search, or files that can't be read.
        TrackingError: An MLflow address that leads nowhere.
    """
    sources = loaded.recipe.search.warm_start
    if resumed is not None:
        kept = read_warm_start(resumed)
        # Other observations would lead the oracle to other proposals than those of the journal.
        if kept.sources != sources:
            what = f"the search began with warm_start {list(kept.sources)}, now it is {list(sources)}"
            hint = "undo the change, or search in another folder with --run-dir"
            raise CheckpointError(what, where=str(resumed / run_files.WARM_START), hint=hint)
        return kept
    algorithm = loaded.recipe.search.algorithm
    # An error and not a note: whoever names earlier searches expects them to matter.
    if sources and algorithm not in _ORACLES:
        hint = f"leave it out, or use one of {', '.join(_ORACLES)}"
        what = f"{algorithm} has no warm start: it runs the same trials whatever is known"
        raise loaded.error(_AT, what, hint=hint)
    images = list_present_images(data) if sources else {}
    known = [each for source in sources for each in _read_known(loaded, source, images, say)]
    return WarmStart(sources, tuple(known))


def write_warm_start(warm: WarmStart, folder: Path) -> None:
    """Write a search's warm start to ``warm_start.json`` in its folder; nothing where there is none."""
    if warm.sources:
        lines = [
            {"values": [[list(path), value] for path, value in each.values.items()]}
            | {"objective": each.objective, "source": each.source}
            for each in warm.known
        ]
        write_json(folder / run_files.WARM_START, {"sources": list(warm.sources), "known": lines})


def read_warm_start(folder: Path) -> WarmStart:
    """Return the warm start that a search has begun with, from its folder.

    Raises:
        CheckpointError: The file can't be read.
    """
    path = folder / run_files.WARM_START
    if not path.exists():
        return WarmStart()
    try:
        found = read_json(path)
        known = [
            Known({tuple(at): value for at, value in each["values"]}, float(each["objective"]), each["source"])
            for each in found["known"]
        ]
        return WarmStart(tuple(found["sources"]), tuple(known))
    except (OSError, *SURPRISES) as error:
        hint = "search again in another folder with --run-dir"
        raise CheckpointError(f"can't be read: {error!r}", where=str(path), hint=hint) from error


def _read_known(loaded: LoadedRecipe, source: str, images: Mapping[str, Image], say: Say) -> list[Known]:
    folder = resolve_run(source, uri=loaded.recipe.tracking.uri) if is_mlflow_uri(source) else Path(source)
    _check_comparable(loaded, source, _read_description(source, folder))
    _check_same_images(loaded, source, folder, images)
    if not (folder / run_files.JOURNAL).is_file():
        raise CheckpointError(f"has no {run_files.JOURNAL}", where=source, hint=_journal_hint(source))
    direction = get_direction(loaded.recipe.search.objective)
    fitting, known, reasons = _Matcher(loaded), list[Known](), list[str]()
    # Without repair: the earlier search may still be running, and isn't ours to write to.
    candidates = rank_candidates(list_results(Journal(folder / run_files.JOURNAL).read(repair=False)), direction)
    # Metrics after fewer epochs can't be compared with those of whole trainings.
    for candidate in _longest(candidates):
        setting = _match_setting(fitting, candidate, folder)
        if isinstance(setting, str):
            reasons.append(setting)
        else:
            known.append(Known(setting, candidate.mean, f"{source} trial {candidate.trial.trial_id}"))
    if not known:
        first = f": in the first of {len(reasons)}, {reasons[0]}" if reasons else ", as none has a metric"
        hint = "leave it out of warm_start" + (", or change back what differs" if reasons else "")
        raise loaded.error(_AT, f"no trial of {source} is a training of this recipe{first}", hint=hint)
    left = f"; {len(reasons)} don't fit: {reasons[0]}" if reasons else ""
    say("warm start", f"{len(known)} of {len(known) + len(reasons)} settings of {source} are reused{left}")
    return known


def _check_comparable(loaded: LoadedRecipe, source: str, about: Mapping[str, Any]) -> None:
    config = loaded.recipe.search
    if about.get("algorithm") not in _ORACLES:
        raise loaded.error(_AT, f"{source} is a {about.get('algorithm')}, whose trials can't be reused")
    for key, now in (("objective", config.objective), ("folds", config.folds)):
        if about.get(key) != now:
            what = f"{source} has {key} {about.get(key)}, this search has {now}"
            raise loaded.error(_AT, f"{what}: their metrics can't be compared")


def _check_same_images(loaded: LoadedRecipe, source: str, folder: Path, now: Mapping[str, Image]) -> None:
    """Check that an earlier search had the same images in the same splits, by their content."""
    then = read_recorded_images(RunFolder(folder))
    differ = sorted(name for name in then.keys() | now.keys() if not _alike(then.get(name), now.get(name)))
    if differ:
        what = f"{source} has other images or splits: {len(differ)} differ, such as {differ[0]}"
        raise loaded.error(_AT, what, hint="their metrics can't be compared; leave it out of warm_start")


def _alike(then: Image | None, now: Image | None) -> bool:
    """Return whether an image has the content, label and split that it had; its group matters only for splits."""
    if then is None or now is None:
        return False
    return (then.labelled[0], then.split, then.sha256) == (now.labelled[0], now.split, now.sha256)


def _journal_hint(source: str) -> str:
    if is_mlflow_uri(source):
        return "MLflow gets it when the search ends: send it with imagetune sync FOLDER, or name the folder itself"
    return "leave it out of warm_start"


def _read_description(source: str, folder: Path) -> dict[str, Any]:
    path = folder / run_files.SEARCH
    if not path.exists():
        hint = "warm_start names the run folders of earlier searches, or their runs:/ID in MLflow"
        raise CheckpointError(f"is no search: it has no {run_files.SEARCH}", where=source, hint=hint)
    return read_document(path, SEARCH, error=CheckpointError)


def _longest(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yield the settings that were trained for the most epochs, without hyperband's lower rungs."""
    longest = max((candidate.trial.epochs or 0 for candidate in candidates), default=0)
    return (candidate for candidate in candidates if (candidate.trial.epochs or 0) == longest)


def _match_setting(fitting: _Matcher, candidate: Candidate, folder: Path) -> dict[NodePath, Value] | str:
    own = run_files.trial_folder(folder, candidate.trial.trial_id) / run_files.RECIPE
    try:
        if own.exists():
            # The trial's own recipe, where it is there, has what was `auto` as it was settled.
            earlier = load_recipe(own).recipe
        else:
            earlier = load_recipe(folder / run_files.RECIPE).with_values(candidate.trial.values).recipe
        return fitting.match(earlier, candidate.trial.values)
    except RecipeError as error:
        return f"its recipe is no longer valid: {error.what}"


def _format_value(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value, ensure_ascii=False)

"""Comparison of finished runs on the test images they share, with significance tests; no model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.commands.before_keras import RUN_LETTERS, check_run_count
from imagetune.core import run_files
from imagetune.core.text import format_count, format_set_difference
from imagetune.data.audit.near_duplicates import find_near_duplicates
from imagetune.data.sources.labels import build_label_rule
from imagetune.errors import DataError, ModelFileError, RecipeError
from imagetune.evaluation.comparison.compare import compare_predictions
from imagetune.evaluation.comparison.document import ComparedRun, build_comparison_document
from imagetune.evaluation.document import evaluate_split
from imagetune.evaluation.predictions import UNKNOWN, Predictions, read_predictions, select_predictions
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.intervals import Estimate, encode_groups
from imagetune.recipe.metrics import list_compared_metrics
from imagetune.reports.comparison import write_comparison
from imagetune.run_folder.folder import RunFolder, describe_state
from imagetune.run_folder.reader import RunFiles, read_run
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run

# Identity of a test image: its content or path, and a number among its exact copies in the split, counted from 0.
Key = tuple[str, int]


@dataclass(frozen=True)
class RunComparison:
    """The comparison of two or more runs.

    Attributes:
        document: The comparison as JSON values; see `imagetune.evaluation.comparison.document`.
        root: The folder that relative paths of images start at.
        files: The files of the first run, whose recipe says how images are read.
    """

    document: dict[str, Any] = field(repr=False)
    root: Path
    files: RunFiles = field(repr=False)


def compare(runs: Sequence[str], *, common: bool = False, metric: str | None = None) -> RunComparison:
    """Return the metrics, differences and significance tests of runs, from the predictions in their folders.

    Args:
        runs: Two or more run folders, or runs:/ or models:/ addresses.
        common: Where the test images differ, compare on those that all runs share and none was trained on.
        metric: The metric that decides; by default the first headline metric of the task.

    Raises:
        RecipeError: There are too few or too many runs, or no such metric.
        ModelFileError: One is no run, or has no test predictions, or has another task or other classes than the first.
        DataError: Their test images differ, or one was trained on another's test images.
    """
    check_run_count(runs)
    members = [_Member.open(run, key) for run, key in zip(runs, RUN_LETTERS, strict=False)]
    for other in members[1:]:
        _require_same_task(members[0], other)
    _require_metric(metric, members[0])
    shared = _find_shared(members, _identify_images(members))
    if not common:
        _require_same_images(members, shared)
    return _compare_members(members, shared, metric)


def write_page(compared: RunComparison, path: Path) -> Path:
    """Write a comparison as a self-contained HTML page with thumbnails, and return its path."""
    return write_comparison(compared.document, path, root=compared.root, config=compared.files.recipe.data)


@dataclass(frozen=True)
class _Member:
    """One of the runs that are compared.

    Attributes:
        name: The run as the user named it.
        key: Its letter in the comparison: A, B, ...
        files: The files of its folder.
        predictions: Its predictions for its test split.
    """

    name: str
    key: str
    files: RunFiles
    predictions: Predictions

    @classmethod
    def open(cls, run: str, key: str) -> _Member:
        """Read a run's files and its test predictions.

        Raises:
            ModelFileError: It is no run, or lacks test predictions or splits.csv.
        """
        files = read_run(resolve_run(run) if is_mlflow_uri(run) else Path(run))
        path = RunFolder(files.folder).predictions("test")
        if not path.is_file():
            what = f"has no test predictions ({describe_state(RunFolder(files.folder))})"
            best = Path(run) / run_files.BEST
            hint = f"name the search's best run, {best}" if best.is_dir() else "give finished runs with a test split"
            raise ModelFileError(what, where=run, hint=hint)
        # Without its splits a run might have been trained on the others' test images, and would then seem better than
        # it is.
        if not files.rows:
            what = "has no splits.csv, so nobody knows whether it was trained on the others' test images"
            raise ModelFileError(what, where=run, hint="give a run folder, or an address whose run still exists")
        tested = files.evaluation.get("splits", {}).get("test", {})
        # The run's own decisions are compared, not those of a common threshold.
        thresholds = [found["threshold"] for found in tested.get("per_class", []) if "threshold" in found]
        rule = build_label_rule(files.recipe.data)
        return cls(run, key, files, read_predictions(path, rule=rule, thresholds=thresholds))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """The absolute path of each test image."""
        return tuple(str(self.files.images_root / path) for path in self.predictions.paths)

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """The absolute path of each image that the run was trained or selected with."""
        rows = (row for row in self.files.rows if row["split"] in ("train", "val"))
        return tuple(str(self.files.images_root / row["path"]) for row in rows)

    @cached_property
    def groups(self) -> Mapping[str, str]:
        """The groups of images by absolute path, of those images that have one."""
        root = self.files.images_root
        return {str(root / row["path"]): row["group"] for row in self.files.rows if row.get("group")}

    @cached_property
    def hashes(self) -> Mapping[str, str]:
        """The SHA-256 of the run's images by absolute path, as far as they are known."""
        hashes: Mapping[str, str] = self.files.lock.get("images", {})
        return hashes

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The true label of each test image, as text."""
        names = (label for label, _ in self.predictions.texts())
        return tuple(";".join(self.predictions.rule.names(label)) if self._several else label for label in names)

    @property
    def _several(self) -> bool:
        return self.predictions.rule.task == "multi_label"


@dataclass(frozen=True)
class _Identities:
    """The identities of the images of all runs: equal keys are the same image.

    Attributes:
        by_content: Whether images are identified by their SHA-256; else by their path.
        tested: For each run the row of each test image among its predictions.
        learned: For each run the images that it was trained or selected with.
    """

    by_content: bool
    tested: tuple[Mapping[Key, int], ...]
    learned: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class _Shared:
    """The test images that all runs share.

    Attributes:
        keys: Images that every run was tested on, in the first run's order.
        relabelled: Those whose label is not the same in all runs.
        seen: Those of which a copy or near-duplicate is in some run's training or validation split.
        learned: For each run the number of the others' test images that it was trained or selected with.
        identities: The identities of all images.
    """

    keys: tuple[Key, ...]
    relabelled: frozenset[Key]
    seen: frozenset[Key]
    learned: tuple[int, ...]
    identities: _Identities

    @property
    def usable(self) -> tuple[Key, ...]:
        """The images on which a comparison is fair: labelled alike, and new to every run."""
        return tuple(key for key in self.keys if key not in self.relabelled and key not in self.seen)


def _identify_images(members: Sequence[_Member]) -> _Identities:
    """Identify images by content where every run knows its test images' hashes, else by path."""
    # A hash finds the same image under another path, but only if every run has recorded all of its hashes.
    by_content = all(member.hashes.get(path) for member in members for path in member.paths)

    def identity(member: _Member, path: str) -> str:
        # Resolved, so that a symbolic link and its target are one image.
        return (by_content and member.hashes.get(path)) or str(Path(path).resolve())

    return _Identities(
        by_content,
        tuple(_number_images(member, [identity(member, path) for path in member.paths]) for member in members),
        tuple(frozenset(identity(member, path) for path in member.learned) for member in members),
    )


def _number_images(member: _Member, identities: Sequence[str]) -> Mapping[Key, int]:
    """Return the row of each test image by its key.

    Copies within the split are numbered by label and path, so that all runs number them alike.
    """
    # A split may hold the same image twice; each copy counts in a run's metrics, and so in the comparison.
    copies: dict[str, count[int]] = {}
    # By label first: copies with different labels must meet the copy with the same label in the other run.
    order = sorted(range(len(identities)), key=lambda place: (member.labels[place], member.paths[place]))
    keys = {place: (identities[place], next(copies.setdefault(identities[place], count()))) for place in order}
    return {keys[place]: place for place in range(len(identities))}


def _find_shared(members: Sequence[_Member], identities: _Identities) -> _Shared:
    first, *others = identities.tested
    keys = tuple(key for key in first if all(key in other for other in others))
    labels = [
        {key: member.labels[place] for key, place in places.items()}
        for member, places in zip(members, identities.tested, strict=True)
    ]
    alike = _find_near_duplicates(members, identities, keys)
    # The test images of all runs, its own among them: a copy in its training split makes its own metrics too good.
    everything = {identity for places in identities.tested for identity, _ in places}
    return _Shared(
        keys=keys,
        relabelled=frozenset(key for key in keys if len({known[key] for known in labels}) > 1),
        # An image that one run has learned is left out for all: the test is paired, image by image.
        seen=frozenset(key for key in keys if key in alike or any(key[0] in learned for learned in identities.learned)),
        learned=tuple(len(everything & learned) for learned in identities.learned),
        identities=identities,
    )


def _find_near_duplicates(members: Sequence[_Member], identities: _Identities, keys: Sequence[Key]) -> frozenset[Key]:
    """Return the shared test images that look like an image that some run was trained or selected with."""
    # The audit before a training keeps near-duplicates of its own test images out of it, but not of another's.
    if len(set(identities.learned)) == 1:
        return frozenset()
    paths = {members[0].paths[identities.tested[0][key]]: key for key in keys}
    found = (find_near_duplicates(list(paths), member.learned, member.files.recipe.data) for member in members)
    return frozenset(paths[path] for near in found for path in near.paths)


def _require_same_task(first: _Member, other: _Member) -> None:
    tasks = [member.predictions.rule.task for member in (first, other)]
    if tasks[0] != tasks[1]:
        what = f"it is a run for {tasks[1]}, {first.name} is one for {tasks[0]}"
        raise ModelFileError(what, where=other.name, hint="compare runs of the same task")
    differing = format_set_difference(first.predictions.class_names, other.predictions.class_names)
    if differing:
        what = f"its classes are not those of {first.name}: it {differing}"
        raise ModelFileError(what, where=other.name, hint="compare runs with the same classes")


def _require_metric(metric: str | None, first: _Member) -> None:
    names = list_compared_metrics(first.predictions.rule.task)
    if metric is not None and metric not in names:
        raise RecipeError(f"{metric!r} is none of {', '.join(names)}", where="--metric", hint="choose one of them")


def _require_same_images(members: Sequence[_Member], shared: _Shared) -> None:
    """Refuse to compare on images that are not the same for all runs, or not new to all of them.

    Raises:
        DataError: The images differ; its hint says how many could be compared on.
    """
    sizes = [len(member.paths) for member in members]
    problems = []
    if any(size != len(shared.keys) for size in sizes):
        each = ", ".join(f"{member.key} has {size}" for member, size in zip(members, sizes, strict=True))
        problems.append(f"their test images differ: {len(shared.keys)} are common to all ({each})")
        problems += [
            f"{member.name} was trained or selected with {format_count(seen, 'test image')} of others"
            for member, seen in zip(members, shared.learned, strict=True)
            if seen
        ]
    elif shared.seen:
        seen = format_count(len(shared.seen), "test image")
        problems.append(f"some run was trained on copies or near-duplicates of {seen}")
    if shared.relabelled:
        problems.append(f"{format_count(len(shared.relabelled), 'common image')} with different labels")
    if not problems:
        return
    usable = len(shared.usable)
    hint = (
        f"add --common to compare on the {usable} that are new to all of them"
        if usable
        else "fit them with the same data and data.split.seed, as `seed` alone moves the split, or give a split column"
    )
    raise DataError("; ".join(problems), where=" ".join(member.name for member in members), hint=hint)


def _compare_members(members: Sequence[_Member], shared: _Shared, metric: str | None) -> RunComparison:
    first, evaluate = members[0], members[0].files.recipe.evaluate
    # An image whose label is none of the classes has no right prediction, and would count as an error of every run.
    known = [key for key in shared.usable if _is_known(first, shared.identities.tested[0][key])]
    if not known:
        what = f"there is no test image to compare on: {len(shared.keys)} are common to all"
        hint = "fit them with the same data and data.split.seed, or on a table with a split column"
        raise DataError(what, where=" ".join(member.name for member in members), hint=hint)
    places = [np.array([tested[key] for key in known]) for tested in shared.identities.tested]
    predictions = {
        member.key: select_predictions(member.predictions, chosen, first.predictions.class_names)
        for member, chosen in zip(members, places, strict=True)
    }
    groups = encode_groups([_find_group(members, [chosen[row] for chosen in places]) for row in range(len(known))])
    comparison = compare_predictions(
        predictions,
        # Without groups each image is resampled by itself.
        groups=np.arange(len(known)) if groups is None else groups,
        bootstrap=Bootstrap(evaluate.bootstrap_samples, evaluate.confidence, first.files.recipe.seed),
        metric=metric,
        metrics={
            member.key: _evaluate_member(member, chosen, evaluate.confidence)
            for member, chosen in zip(members, places, strict=True)
        },
    )
    document = build_comparison_document(
        comparison,
        predictions,
        runs=[_describe_member(member) for member in members],
        matched_by="content" if shared.identities.by_content else "path",
        notes=tuple(_list_notes(members, shared, len(known))),
    )
    return RunComparison(document, first.files.images_root, first.files)


def _evaluate_member(member: _Member, places: NDArray[np.int64], confidence: float) -> Mapping[str, Estimate]:
    """Return a run's metrics on the images that are compared, as its own test has them, by its own settings."""
    # In its own order, too: on the whole test split the intervals are those of its report to the last digit.
    own = np.sort(places)
    recipe = member.files.recipe
    return evaluate_split(
        select_predictions(member.predictions, own, member.predictions.class_names),
        config=recipe.evaluate.model_copy(update={"confidence": confidence}),
        seed=recipe.seed,
        groups=[member.groups.get(member.paths[place]) for place in own],
    ).metrics


def _is_known(member: _Member, place: int) -> bool:
    single = member.predictions.rule.task in ("single_label", "ordinal")
    return not single or bool(member.predictions.labels[place] != UNKNOWN)


def _find_group(members: Sequence[_Member], places: Sequence[int]) -> str | None:
    """Return the group of an image from the first run that knows one, or None."""
    found = (member.groups.get(member.paths[place]) for member, place in zip(members, places, strict=True))
    return next((group for group in found if group), None)


def _describe_member(member: _Member) -> ComparedRun:
    recipe = member.files.recipe
    return ComparedRun(
        key=member.key,
        name=member.name,
        recipe=recipe.name,
        backbone=recipe.model.backbone,
        test_images=len(member.paths),
    )


def _list_notes(members: Sequence[_Member], shared: _Shared, compared: int) -> Iterator[str]:
    """Yield sentences on the images that were left out, and on runs that can't be compared in full."""
    sizes = [len(member.paths) for member in members]
    if any(size != len(shared.keys) for size in sizes):
        each = ", ".join(f"{member.key} was tested on {size}" for member, size in zip(members, sizes, strict=True))
        yield f"the test images differ ({each}); the comparison is on {compared} that all have in common"
    if shared.seen:
        seen = format_count(len(shared.seen), "image")
        yield f"{seen} left out: a copy or near-duplicate is in some run's training or validation split"
    if shared.relabelled:
        yield f"{format_count(len(shared.relabelled), 'image')} left out: the runs have different labels for them"
    if unknown := len(shared.usable) - compared:
        yield f"{format_count(unknown, 'image')} left out: the label is not one of the classes"
    # Not an error: a script may compare a run with itself, but nobody should take the tie for a finding.
    folders = Counter(member.files.folder.resolve() for member in members)
    if max(folders.values()) > 1:
        yield "the same run is given twice"
    if not shared.identities.by_content:
        yield "images are matched by path: some run has no SHA-256 of its images, so copies would not be noticed"

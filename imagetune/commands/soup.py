"""Greedy model soup: the mean of several runs' weights, chosen on validation, tested once, as a run of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagetune.core.files import write_json
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count
from imagetune.data.loading.pipeline import load_training_batches
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ModelFileError, RecipeError
from imagetune.evaluation.document import list_failed_requirements
from imagetune.model.manifest import Manifest, load_model
from imagetune.model.soup import Rank, SoupStep, Weights, average_weights, choose_greedy_soup
from imagetune.recipe.schema import Recipe
from imagetune.recipe.used_plugins import find_used_plugins
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.lock import build_lock_document
from imagetune.run_folder.reader import read_evaluation
from imagetune.runs.checks.start import check_start
from imagetune.runs.lineage import Member, count_different_images, open_members
from imagetune.runs.run import start_run, write_model
from imagetune.runs.test import evaluate_splits
from imagetune.training.loop.batch_norm import list_batch_norm_layers, reestimate_statistics
from imagetune.training.setup.job import TrainingImages
from imagetune.training.setup.stopping import StopRequest
from imagetune.training.setup.validation import compute_validation_metrics

# None of these changes the shape or the meaning of a weight: models may differ in them and still be averaged.
_FREE = frozenset(
    {
        "imagetune",
        "keras",
        "precision",
        "max_pixels",
        "tta",
        "thresholds",
        "temperature",
        "conformal",
        "operating_point",
        "costs",
        "out_of_distribution",
        "weights_sha256",
    }
)
_FREE_SETTINGS = frozenset(
    {"config.weights", "config.drop_path", "config.head.dropout", "config.head.l1", "config.head.l2"}
)


@dataclass(frozen=True)
class Soup:
    """A finished model soup.

    Attributes:
        folder: The run folder of the soup.
        document: The content of soup.json.
        evaluation: The content of evaluation.json.
        missed: A sentence for each missed requirement of ``evaluate.require``, which says by how much.
    """

    folder: Path
    document: dict[str, Any]
    evaluation: dict[str, Any]
    missed: tuple[str, ...]


def soup(
    runs: Sequence[str],
    *,
    run_dir: Path | None = None,
    say: Say = say_nothing,
    stop: StopRequest | None = None,
) -> Soup:
    """Average the weights of finished runs as a greedy soup (Wortsman et al. 2022, arXiv 2203.05482), and test it once.

    The runs are tried from the best to the worst by validation accuracy, by loss where that is equal (where the task
    has no accuracy, by loss alone), without test-time augmentation. The result is a run folder with the best one's
    recipe, and ``soup.json``::

        {"members": [{"run": "runs/a", "folder": "/home/me/runs/a", "weights_sha256": "...",
                      "val": {"loss": 0.5, "accuracy": 0.9, ...}, "kept": true}],
         "steps": [{"added": "runs/a", "members": ["runs/a"], "val": {...}, "kept": true}],
         "batch_norm": "averaged" | "reestimated"}

    BatchNorm statistics that all members share are kept. Where they differ, their mean fits none of the averaged
    weights, and they are estimated again on training images, as Izmailov et al. (2018, arXiv 1803.05407) do.

    Args:
        runs: At least two run folders, or runs:/ or models:/ addresses.
        run_dir: The soup's run folder; one is named and made under runs/ by default.
        say: Receives progress messages.
        stop: Checked before each mean is validated; by default nothing stops it.

    Raises:
        RecipeError: Fewer than two runs.
        ModelFileError: The runs' architectures, inputs or classes differ.
        DataError: Their validation or test images differ, or there are none to validate with.
    """
    if len(runs) < 2:
        raise RecipeError("a soup needs at least two runs", where="RUN", hint="name several: imagetune soup RUN RUN")
    members = open_members(runs)
    for other in members[1:]:
        _require_alike(members[0], other)
    for member in members:
        _refuse_refit(member)
    if not members[0].splits.val:
        raise DataError("has no validation images to choose with", where=members[0].name)
    # Before any mean is validated: a folder that can't be written is found at once.
    check_start(run_dir, members[0].recipe.tracking)
    candidates = _Candidates(members, [_load_weights(member) for member in members], stop or StopRequest(), say)
    return _record_soup(candidates, *candidates.choose(), run_dir=run_dir)


class _Candidates:
    """The members of a soup, and the validation metrics of the means that were tried.

    Args:
        members: The runs, of one architecture.
        weights: The weights of each.
        stop: Checked before each mean is validated.
        say: Receives progress messages.

    Attributes:
        model: The model that means are put into.
        metrics: The validation metrics of each mean, by the positions of its members.
    """

    def __init__(self, members: Sequence[Member], weights: Sequence[Weights], stop: StopRequest, say: Say) -> None:
        self.members = members
        self.weights = weights
        self.stop = stop
        self.say = say
        # All are validated on the same pixels, whatever the other recipes say about reading images.
        self.recipe = members[0].recipe
        self.splits = members[0].splits
        self.model = load_model(members[0].folder.model).model
        self.metrics: dict[tuple[int, ...], dict[str, float]] = {}

    def choose(self) -> tuple[Member, tuple[SoupStep, ...]]:
        """Add members greedily, leave the best mean in ``model``, and return the best member and all steps."""
        ranks = [self.compute_rank((index,)) for index in range(len(self.members))]
        steps = choose_greedy_soup(ranks, self.compute_rank)
        for step in steps:
            self.say(
                "kept" if step.kept else "left out", f"{self.members[step.added].name}: {self._describe_step(step)}"
            )
        best = self.members[steps[0].added]
        # The soup is saved with the best run's recipe: dropout and the like come from its model, not the first one's.
        self.model = load_model(best.folder.model).model
        self.fill(find_kept_members(steps))
        return best, steps

    def compute_rank(self, chosen: tuple[int, ...]) -> Rank:
        """Return the rank of the mean of some members by its validation metrics."""
        self.stop.check()
        self.fill(chosen)
        recipe, splits = self.recipe, self.splits
        images = TrainingImages(splits.train, splits.val, splits.class_names, recipe.data)
        self.metrics[chosen] = compute_validation_metrics(self.model, images, batch_size=recipe.evaluation_batch_size)
        return rank(self.metrics[chosen])

    def fill(self, chosen: tuple[int, ...]) -> None:
        """Put the mean of some members' weights into ``model``, with BatchNorm statistics that fit it."""
        members = [self.weights[index] for index in chosen]
        self.model.set_weights(average_weights(members))
        if layers := find_differing_statistics(self.model, members):
            reestimate_statistics(self.model, _training_images(self.splits, self.recipe), only=layers)

    def _describe_step(self, step: SoupStep) -> str:
        metrics = ", ".join(
            f"{name} {self.metrics[step.members][name]:.4f}" for name in _list_ranking_metrics(self.metrics[(0,)])
        )
        return f"{metrics} on validation" if len(step.members) == 1 else f"{metrics} with it"


def rank(metrics: Mapping[str, float]) -> Rank:
    """Return accuracy, where the task has one, then the negative loss for equals; a larger rank is better."""
    return tuple(metrics[name] if name == "accuracy" else -metrics[name] for name in _list_ranking_metrics(metrics))


def find_kept_members(steps: Sequence[SoupStep]) -> tuple[int, ...]:
    """Return the positions of the models that the soup is the mean of."""
    # The last step that was kept has all that were kept before it.
    return next(step.members for step in reversed(steps) if step.kept)


def find_differing_statistics(model: keras.Model, members: Sequence[Weights]) -> list[keras.layers.Layer]:
    """Return the BatchNorm layers whose means or variances are not the same in all members.

    Args:
        model: A model of the members' architecture.
        members: The weights of each member, in the order of ``model.weights``.
    """
    place = {id(weight): index for index, weight in enumerate(model.weights)}

    def differs(layer: keras.layers.Layer) -> bool:
        moving = [place[id(layer.moving_mean)], place[id(layer.moving_variance)]]
        return any(not np.array_equal(member[index], members[0][index]) for member in members for index in moving)

    return [layer for layer in list_batch_norm_layers(model) if differs(layer)]


def _list_ranking_metrics(metrics: Mapping[str, float]) -> tuple[str, ...]:
    return ("accuracy", "loss") if "accuracy" in metrics else ("loss",)


def _load_weights(member: Member) -> Weights:
    weights: Weights = load_model(member.folder.model).model.get_weights()
    return weights


def _training_images(splits: Splits, recipe: Recipe) -> Iterator[np.ndarray]:
    """Yield batches of the training images in random order, not augmented."""
    with load_training_batches(
        splits.train,
        splits.class_names,
        image=recipe.data.image,
        # The statistics are for prediction, which sees images as they are.
        augmentation="none",
        batch_size=recipe.train.pass_size,
        seed=recipe.seed,
        epochs=1,
        workers=0,
        max_pixels=recipe.data.max_pixels,
    ) as batches:
        for batch in batches:
            yield batch.images


def _record_soup(candidates: _Candidates, best: Member, steps: Sequence[SoupStep], *, run_dir: Path | None) -> Soup:
    """Write a soup into a run folder of its own, test it once, and record it like any run."""
    recipe, say = best.recipe, candidates.say
    document = _build_document(candidates, steps)
    with start_run(recipe, run_dir, say=say) as run:
        _write_inputs(run.folder, best, document)
        run.track()
        candidates.stop.check()
        val = write_model(run.folder, candidates.model, recipe, best.splits)
        evaluation = evaluate_splits(run.folder, candidates.model, recipe, best.splits, say=say, val=val)
    return Soup(run.folder.path, document, evaluation, list_failed_requirements(evaluation, recipe.evaluate.require))


def _build_document(candidates: _Candidates, steps: Sequence[SoupStep]) -> dict[str, Any]:
    kept = find_kept_members(steps)
    names = [member.name for member in candidates.members]
    # Of the kept members alone: what was left out has no part in the statistics.
    moved = find_differing_statistics(candidates.model, [candidates.weights[index] for index in kept])
    return {
        "members": [
            {
                "run": member.name,
                "folder": str(member.folder.path),
                "weights_sha256": member.manifest.weights_sha256,
                "val": candidates.metrics[(index,)],
                "kept": index in kept,
            }
            for index, member in enumerate(candidates.members)
        ],
        "steps": [
            {
                "added": names[step.added],
                "members": [names[index] for index in step.members],
                "val": candidates.metrics[step.members],
                "kept": step.kept,
            }
            for step in steps
        ],
        "batch_norm": "reestimated" if moved else "averaged",
    }


def _write_inputs(folder: RunFolder, best: Member, document: Mapping[str, Any]) -> None:
    kept = [member for member in document["members"] if member["kept"]]
    note = f"the mean of the weights of {format_count(len(kept), 'run')}: {', '.join(member['run'] for member in kept)}"
    weights = {"source": "soup", "sha256": None, "note": note, "license": best.manifest.weights_license}
    write_json(
        folder.lock,
        build_lock_document(
            seed=best.recipe.seed, weights=weights, images=best.hashes, plugins=find_used_plugins(best.recipe)
        ),
    )
    write_json(folder.soup, document)
    # Copied: its images are those of its members, in their splits; nothing is audited or split again.
    for from_best, own in ((best.folder.splits, folder.splits), (best.folder.audit, folder.audit)):
        if from_best.is_file():
            shutil.copyfile(from_best, own)


def _require_alike(first: Member, other: Member) -> None:
    """Make sure that the weights of two runs can be averaged, and validated and tested on the same images."""
    one, two = (dict(_list_settings(member.manifest)) for member in (first, other))
    for name in one | two:
        if one.get(name) != two.get(name):
            what = f"its {name} is {two.get(name)!r}, that of {first.name} is {one.get(name)!r}"
            raise ModelFileError(what, where=other.name, hint="average runs that differ only in how they were trained")
    for split in ("val", "test"):
        # The validation images as well: members are ranked on the first one's, which another may have been trained on.
        if count := count_different_images(first, other, split):
            name = "validation" if split == "val" else "test"
            what = f"its {name} images are not those of {first.name}: {format_count(count, 'difference')}"
            raise DataError(
                what,
                where=other.name,
                hint="fit them with the same images and data.split.seed (`seed` alone moves the split)",
            )


def _refuse_refit(member: Member) -> None:
    """Make sure that a run has not learned from its validation images, by which a soup is chosen."""
    if read_evaluation(member.folder.evaluation).get("refit"):
        what = "its head was refit on its validation images, by which a soup is chosen"
        raise ModelFileError(what, where=member.name, hint="fit it again with train.refit: off")


def _list_settings(manifest: Manifest) -> Iterator[tuple[str, Any]]:
    """Yield the settings that the models of a soup must share, as dotted name and value."""

    def walk(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
        for name, value in values.items():
            place = f"{before}{name}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{place}.")
            elif place not in _FREE_SETTINGS:
                yield place, value

    yield from walk(manifest.model_dump(mode="json", exclude=set(_FREE)), "")

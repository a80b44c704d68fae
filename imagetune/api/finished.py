"""Finished runs as objects: what they measured, and their model to predict with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.api.images import Images, as_paths_or_arrays
from imagetune.commands.evaluate import evaluate_model
from imagetune.commands.explain import Explanation, explain_images
from imagetune.commands.predict import list_run_images, predict_listed
from imagetune.core.messages import log_message
from imagetune.core.quiet import hide_library_warnings
from imagetune.errors import ModelFileError
from imagetune.evaluation.image_predictions import DecisionRules, ImagePrediction, require_rules
from imagetune.evaluation.predict import predict_arrays
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import Manifest, find_manifest, load_model, read_manifest
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.requirements import parse_requirement
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.reader import read_epochs, read_evaluation
from imagetune.runs.lineage import SeenPolicy
from imagetune.runs.open import find_run
from imagetune.search.results.findings import NO_FINDINGS, Findings
from imagetune.training.setup.events import EpochRecord, build_epoch_record

if TYPE_CHECKING:
    import keras

    from imagetune.search.records.trial import TrialResult
    from imagetune.search.session import Search


@dataclass(frozen=True)
class MetricValue:
    """A metric as it was measured on one split.

    Attributes:
        value: The measured value; None where it is not defined.
        low: Lower end of its confidence interval (95% unless the recipe says otherwise); None where there is none.
        high: Upper end.
        reason: Why something is None.
    """

    value: float | None
    low: float | None
    high: float | None
    reason: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"not defined ({self.reason})"
        interval = "" if self.low is None or self.high is None else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.value:.3f}{interval}"


@dataclass(frozen=True)
class EvaluationResult:
    """What a test found.

    Attributes:
        document: Everything, as evaluation.json has it; see `imagetune.evaluation.document.build_evaluation_document`.
    """

    document: Mapping[str, Any] = field(repr=False)

    @cached_property
    def metrics(self) -> Mapping[str, MetricValue]:
        """Each metric of the test split by name; of the validation split where nothing was held out."""
        splits = self.document.get("splits", {})
        tested: Mapping[str, Any] = splits.get("test") or splits.get("val") or {}
        return {
            name: MetricValue(found["value"], found["low"], found["high"], found.get("reason", ""))
            for name, found in tested.get("metrics", {}).items()
        }

    @property
    def missed(self) -> tuple[str, ...]:
        """A sentence for each requirement that the test missed; empty where it met all."""
        return tuple(
            requirement["message"] for requirement in self.document.get("requirements", []) if not requirement["met"]
        )

    @property
    def unusable(self) -> Mapping[str, str]:
        """Why images were left out, by path."""
        unusable: Mapping[str, str] = self.document.get("unusable", {})
        return unusable

    def __str__(self) -> str:
        return "\n".join(f"{name} {value}" for name, value in self.metrics.items())


@dataclass(frozen=True)
class FinishedRun:
    """A finished run: its recipe, its metrics, and its model to predict with.

    The model is read from the folder when it is used for the first time.

    Attributes:
        folder: The run folder.
    """

    folder: Path

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe, every default written out.

        Raises:
            RecipeError: recipe.yaml can't be read.
        """
        return load_recipe(self._files.recipe).recipe

    @property
    def class_names(self) -> tuple[str, ...]:
        """Label of each of the model's outputs; for regression what the number is called."""
        return self._manifest.class_names

    @cached_property
    def evaluation(self) -> EvaluationResult:
        """What the run's own test found.

        Raises:
            ModelFileError: The run ended before its test.
        """
        document = read_evaluation(self._files.evaluation)
        if not document:
            raise ModelFileError("has no evaluation.json: the run ended before its test", where=str(self.folder))
        return EvaluationResult(document)

    @property
    def metrics(self) -> Mapping[str, MetricValue]:
        """Each metric of the test by name, with its interval."""
        return self.evaluation.metrics

    @property
    def missed(self) -> tuple[str, ...]:
        """A sentence for each requirement of ``evaluate.require`` that the test missed; empty where it met all."""
        return self.evaluation.missed

    @cached_property
    def epochs(self) -> tuple[EpochRecord, ...]:
        """The metrics of every epoch of the training, in their order."""
        return tuple(build_epoch_record(line) for line in read_epochs(self._files.metrics))

    @property
    def report(self) -> Path:
        """The report: one self-contained HTML page."""
        return self._files.report

    @property
    def model(self) -> keras.Model:
        """The Keras model: (n, height, width, 3) uint8 RGB to (n, classes) probabilities, or (n, 1) numbers.

        Raises:
            ModelFileError: Something is missing, corrupted, or changed since it was written.
        """
        return self._loaded.model

    def predict(
        self,
        images: Images,
        *,
        calibrated: bool = False,
        sets: bool = False,
        operating_point: bool = False,
        min_cost: bool = False,
    ) -> Iterator[ImagePrediction]:
        """Yield a prediction for each image, in order, as they come; ``list`` makes a list of them.

        Args:
            images: A file, a folder, a pattern, a table (.csv, .tsv, .parquet) whose column of paths is that of the
                recipe, or a list of them; or uint8 RGB arrays: (h, w, 3), (n, h, w, 3), or a list of the former.
                Memory does not grow with the number of files.
            calibrated: Give probabilities at the temperature that validation gave; no label changes.
            sets: Also give the prediction set, or for regression the interval.
            operating_point: Choose the label by the threshold of ``evaluate.operating_point``.
            min_cost: Choose the label whose expected cost is least by ``evaluate.costs``.

        Yields:
            Predictions; one of a file that can't be read has an ``error`` and no label. What was passed over in folders
            goes to the logger ``imagetune``.

        Raises:
            DataError: There is no such path, or an array has another shape or dtype.
            ModelFileError: The model is corrupted, or has nothing of what an option asks for.
        """
        ways = DecisionRules(calibrated, sets, operating_point, min_cost)
        given = as_paths_or_arrays(images)
        paths = [image for image in given if isinstance(image, str)]
        if paths:
            require_rules(self._loaded, ways)
            found = predict_listed([self._loaded], list_run_images(self._files, paths, say=log_message), ways)
        else:
            found = predict_arrays(self._loaded, [image for image in given if not isinstance(image, str)], ways)
        return _iterate_quietly(found)

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        require: Sequence[str] = (),
        seen: SeenPolicy = "refuse",
    ) -> EvaluationResult:
        """Return the result of a test on other labelled images, or once more on the run's own test split.

        Args:
            data: A folder of class folders, or a table; by default the run's test split.
            require: Requirements besides those of the recipe, such as ``balanced_accuracy:lower_bound=0.85``.
            seen: What is done with images that the run was trained or selected with: ``allow`` tests on them, too, and
                no requirement is met then; ``skip`` tests on the others alone.

        Raises:
            DataError: There are no such images, they can't be read, or the run was trained or selected with some.
            RecipeError: A requirement can't be read.
        """
        place = None if data is None else Path(data)
        requirements = [parse_requirement(text) for text in require]
        with hide_library_warnings():
            document = evaluate_model(self._files, self._loaded, data=place, require=requirements, seen=seen)
            return EvaluationResult(document)

    def explain(self, images: Images, *, out: str | Path, target: str | None = None) -> list[Explanation]:
        """Return an explanation of each image, and write a JPEG for each: the image, Grad-CAM and occlusion.

        Args:
            images: As for `predict`.
            out: Folder for the JPEGs; made where it isn't there.
            target: The class to explain; by default the predicted one. Of a number, ``higher`` or ``lower``.

        Raises:
            DataError: There is no such path, or one would be written over.
            RecipeError: The model has no such class.
            ResourceError: ``out`` can't be written.
        """
        given = as_paths_or_arrays(images)
        with hide_library_warnings():
            return list(explain_images(self._loaded, given, out=Path(out), target=target, say=log_message))

    @cached_property
    def _loaded(self) -> LoadedModel:
        return load_model(self._files.model)

    @cached_property
    def _manifest(self) -> Manifest:
        # The manifest alone knows the classes: no model need be loaded to name them.
        return read_manifest(find_manifest(self.folder))

    @property
    def _files(self) -> RunFolder:
        return RunFolder(self.folder)

    def __fspath__(self) -> str:
        """Return the folder, so that a run stands wherever a path does."""
        return str(self.folder)

    def __repr__(self) -> str:
        return f"<FinishedRun {self.folder.name}: {self._told()}>"

    def _repr_html_(self) -> str:
        """Return a small table for notebooks."""
        if not self._files.evaluation.is_file():
            # Notebooks call this for every object that they show: it must not raise for a run without a test.
            return f"<p>{escape(repr(self))}</p>"
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{value}</td></tr>" for name, value in self.metrics.items())
        return f"<p><b>{escape(self.folder.name)}</b>, {escape(self._kind())}</p><table>{rows}</table>"

    def _told(self) -> str:
        if not self._files.evaluation.is_file():
            return "not tested"
        first = next(iter(self.metrics.items()), None)
        return self._kind() + (f", {first[0]} {first[1]}" if first else "")

    def _kind(self) -> str:
        task = self._manifest.task
        return task if task == "regression" else f"{task} with {len(self.class_names)} classes"


@dataclass(frozen=True)
class FinishedSearch:
    """A finished search.

    Attributes:
        folder: The search's folder.
        trials: How every trial ended, in that order.
        best: The run of the best setting, trained and tested after the trials.
        findings: What a sweep or a bake-off has found beside the winner.
    """

    folder: Path
    trials: tuple[TrialResult, ...] = field(repr=False)
    best: FinishedRun
    findings: Findings = field(default=NO_FINDINGS, repr=False)

    @classmethod
    def of(cls, found: Search) -> FinishedSearch:
        """Return what a program needs of a search."""
        return cls(found.folder, found.results, FinishedRun(found.best.folder), found.findings)


def _iterate_quietly(predictions: Iterator[ImagePrediction]) -> Iterator[ImagePrediction]:
    """Yield predictions, with the warnings of libraries hidden while they are made, and not while they are used."""
    while True:
        with hide_library_warnings():
            prediction = next(predictions, None)
        if prediction is None:
            return
        yield prediction


def load(run: str | Path | FinishedRun) -> FinishedRun:
    """Return a finished run to predict and evaluate with.

    Args:
        run: A run folder, or a ``runs:/`` or ``models:/`` address of MLflow.

    Raises:
        ModelFileError: It is no run folder, or has no model yet.
        TrackingError: The address leads nowhere.
    """
    # The same object, as its model may be loaded already.
    return run if isinstance(run, FinishedRun) else FinishedRun(find_run(str(run)).path)

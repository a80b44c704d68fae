"""A run's model exported to another runtime, measured there, and refused where it predicts worse."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import convert_disk_errors, write_json
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count, format_list
from imagetune.data.loading.pipeline import load_evaluation_batches
from imagetune.data.loading.preview import pick_records
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ModelFileError, RecipeError
from imagetune.evaluation.predictions import (
    WORTH_FOLDING,
    Predictions,
    build_predictions,
    make_relative_path,
    select_predictions,
)
from imagetune.export.folder import (
    PAGE,
    PARITY,
    Measurement,
    count_bytes,
    finish_export,
    measure_export,
    write_export,
    write_softer_models,
)
from imagetune.export.formats import Format, Quantization, Target, require_possible
from imagetune.export.parity import Parity, build_parity_document, compare_outputs
from imagetune.export.sample import SAMPLE
from imagetune.export.scores import compare_scores
from imagetune.model.build import append_layer_output
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.inference import predict_probabilities
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import Manifest, read_manifest
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.sections.data import DataConfig
from imagetune.reports.parity import write_parity_page
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.reader import read_evaluation
from imagetune.run_folder.receipt import renew_receipt
from imagetune.runs.open import open_run, read_run_splits
from imagetune.runs.pages import send_changes
from imagetune.serving.drift.reference import read_drift_reference, write_exported_reference

REFUSED = "refused"
CALIBRATION_IMAGES = 128
BATCH_SIZE = 32
NO_IMAGES = np.zeros((0, 0, 0, 3), np.uint8)


@dataclass(frozen=True)
class _Reference:
    """What the Keras model predicts for the compared images, without test-time augmentation.

    Attributes:
        predictions: Of n images.
        scores: (n,) their out-of-distribution scores; None where the run has no rule for them.
    """

    predictions: Predictions
    scores: NDArray[np.float64] | None


@dataclass(frozen=True)
class _Job:
    """What an export is made of and compared with.

    Attributes:
        loaded: The model of the run.
        manifest: Its manifest.
        target: The format and number type.
        root: The folder at which relative paths of images start.
        reference: What the Keras model predicts.
        max_drop: The tolerated drop of the accuracy, in percentage points.
    """

    loaded: LoadedModel
    manifest: Manifest
    target: Target
    root: Path
    reference: _Reference
    max_drop: float


def export(
    run: str,
    *,
    format: Format,
    out: Path,
    quantize: Quantization = "none",
    max_drop: float = 1.0,
    say: Say = say_nothing,
) -> dict[str, Any]:
    """Export the model of a run to a folder, and accept it if its own runtime predicts as the Keras model does.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        format: saved_model, litert or onnx.
        out: The folder to make.
        quantize: The number type: none keeps float32; fp16, dynamic or int8.
        max_drop: The drop of accuracy in percentage points that the validation images must rule out.
        say: Receives the progress.

    Returns:
        The content of parity.json: how the predictions differ, latency, size and memory.

    Raises:
        RecipeError: The format has no such number type, or ``out`` holds something.
        ResourceError: A package is not installed, or the model can't be converted.
        DataError: The run has no validation images, or they can't be read.
        ModelFileError: It is no finished run; or the export is refused, and lies in ``out/refused``.
    """
    target = Target(format, quantize)
    require_possible(target)
    _require_free(out)
    folder, loaded = open_run(run)
    data = load_recipe(folder.recipe).recipe.data
    splits = read_run_splits(folder, data, loaded.class_names)
    split, records = _choose_images(folder, splits)
    job = _Job(loaded, read_manifest(folder.model), target, splits.root, _predict(loaded, records, splits), max_drop)
    with convert_disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".tmp-export-") as name:
            place = Path(name) / "export"
            place.mkdir()
            say("export", f"converting to {target.name}")
            calibration = _load_calibration(loaded, splits, data) if quantize == "int8" else NO_IMAGES
            write_export(loaded, job.manifest, target, place, calibration)
            say("measure", f"predicting {format_count(len(records), f'{split} image')} by its own runtime")
            document = _compare(job, place)
            if document["reasons"] and target.name == "litert-int8":
                document = _soften(job, place, calibration, document, say)
            document = {"split": split, **document}
            write_json(place / PARITY, document)
            _write_expected_shares(folder, document, place)
            write_parity_page(document, place / PAGE, root=splits.root, config=data)
            return _deliver(place, out, folder, target, document, say=say)


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(path.name != REFUSED for path in out.iterdir())):
        raise RecipeError("is there already", where=f"--out {out}", hint="choose another folder, or remove it")


def _choose_images(folder: RunFolder, splits: Splits) -> tuple[str, Sequence[Record]]:
    """Return the split whose images the export is compared on, ``validation`` or ``test``, and its images.

    A head that was solved again on training and validation images has learned from both: then it is the test split,
    from which nothing is chosen here but whether to refuse.

    Raises:
        DataError: There are no such images.
    """
    refit = bool(read_evaluation(folder.evaluation).get("refit"))
    name, records = ("test", tuple(open_holdout(splits))) if refit else ("validation", splits.val)
    if not records:
        raise DataError(f"has no {name} images to compare the export on", where=str(folder.path))
    return name, records


def _predict(loaded: LoadedModel, records: Sequence[Record], splits: Splits) -> _Reference:
    model, outputs = loaded.model, len(loaded.class_names)
    if loaded.evidence_layer is not None:
        model = append_layer_output(model, loaded.evidence_layer)
    if len(records) >= WORTH_FOLDING:
        model = fold_batch_norm_layers(model)
    with load_evaluation_batches(
        records,
        loaded.class_names,
        image=loaded.image,
        batch_size=BATCH_SIZE,
        workers="auto",
        max_pixels=loaded.max_pixels,
    ) as batches:
        seen = np.asarray(predict_probabilities(model, batches), np.float64)
    predictions = build_predictions(
        [record.path for record in records],
        [record.label for record in records],
        seen[:, :outputs],
        loaded.class_names,
        rule=splits.rule,
        thresholds=loaded.thresholds,
    )
    scores = loaded.detector.scores(seen[:, outputs:], loaded.task) if loaded.detector else None
    return _Reference(predictions, scores)


def _load_calibration(loaded: LoadedModel, splits: Splits, data: DataConfig) -> NDArray[np.uint8]:
    """Return (n, height, width, 3) training images, as many of each class as there are, up to 128 of all."""
    with load_evaluation_batches(
        pick_records(splits.train, CALIBRATION_IMAGES),
        loaded.class_names,
        image=data.image,
        batch_size=BATCH_SIZE,
        workers="auto",
        max_pixels=loaded.max_pixels,
    ) as batches:
        return np.concatenate([batch.images for batch in batches])


def _compare(job: _Job, place: Path, float_layers: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return how an export predicts images and what that costs, and write what only its predictions tell."""
    reference, target = job.reference.predictions, job.target
    measured = measure_export(place, [*reference.paths, str(place / SAMPLE)])
    read = _find_read(measured.outputs, len(reference.paths))
    if not len(read):
        reasons = sorted({reason for reason in measured.reasons if reason}) or ["its outputs are no finite numbers"]
        raise ModelFileError(
            f"the export predicts none of the images: {format_list(reasons, most=2)}", where=target.name
        )
    compared = select_predictions(reference, read, reference.class_names)
    parity = compare_outputs(compared, measured.outputs[read], max_drop=job.max_drop)
    scores = _compare_scores(job, measured)
    finish_export(place, job.manifest, target, measured.outputs[-1], scores=scores, float_layers=float_layers)
    return {
        "format": target.format,
        "quantization": target.quantization,
        "float_layers": list(float_layers),
        "max_drop": job.max_drop,
        **build_parity_document(parity, compared, measured.outputs[read], root=job.root),
        **_describe_cost(measured, place / target.model_name),
        "not_read": {
            make_relative_path(path, job.root): why
            # Behind the compared images comes the sample.
            for path, why in zip(reference.paths, measured.reasons, strict=False)
            if why
        },
        "encoded": _compare_encoded(reference, measured, job.max_drop),
        "out_of_distribution": scores,
    }


def _soften(
    job: _Job, place: Path, calibration: NDArray[np.uint8], refused: dict[str, Any], say: Say
) -> dict[str, Any]:
    """Return how a refused int8 export predicts with as few layers in float32 as make it accepted.

    Where none do, it is the last one that stays, with half of the layers in float32.
    """
    if refused["verdict"] == "unproven" and refused["label_agreement"] == 1.0:
        return refused  # it is the images that are too few
    say("export", "refused; looking for the layers whose int8 costs most")
    document = refused
    for kept in write_softer_models(job.loaded, place, calibration):
        document = _compare(job, place, kept)
        agreement = f"{document['label_agreement']:.1%} of the labels as by the Keras model"
        say("measure", f"with {format_count(len(kept), 'layer')} in float32: {agreement}")
        if not document["reasons"]:
            break
    return document | {
        "int8_throughout": {name: refused[name] for name in ("label_agreement", "size_bytes", "reasons")}
    }


def _write_expected_shares(folder: RunFolder, document: dict[str, Any], place: Path) -> None:
    """Write what the export's predictions are compared with where it is served; nothing where nothing is known."""
    scores = document["out_of_distribution"]
    reference = read_drift_reference(folder, scored=scores is not None and not scores["problem"])
    if reference is not None:
        write_exported_reference(reference, place)


def _find_read(outputs: NDArray[np.float64], images: int) -> NDArray[np.int64]:
    """Return which of the compared images, the first rows of an export's outputs, have been predicted."""
    return np.flatnonzero(np.isfinite(outputs[:images]).all(axis=1))


def _compare_scores(job: _Job, measured: Measurement) -> dict[str, Any] | None:
    """Return how an export's out-of-distribution scores differ; None where the run has no rule for them."""
    scores = job.reference.scores
    if job.loaded.detector is None or scores is None:
        return None
    read = _find_read(measured.scores[:, None], len(scores))
    return compare_scores(job.loaded.detector.rule, scores[read], measured.scores[read])


def _describe_cost(measured: Measurement, model: Path) -> dict[str, Any]:
    return {
        "size_bytes": count_bytes(model),
        "milliseconds": {
            "median": float(np.median(measured.milliseconds)),
            "p95": float(np.quantile(measured.milliseconds, 0.95)),
            "calls": len(measured.milliseconds),
        },
        "peak_memory_bytes": measured.peak_bytes,
    }


def _compare_encoded(reference: Predictions, measured: Measurement, max_drop: float) -> dict[str, Any] | None:
    """Return how a SavedModel's signature for image files differs; None for other formats."""
    if not len(measured.encoded):
        return None
    read = _find_read(measured.encoded, len(reference.paths))
    found: dict[str, Any] = {"images": len(read), "not_read": len(reference.paths) - len(read)}
    if len(read):
        compared = select_predictions(reference, read, reference.class_names)
        parity: Parity = compare_outputs(compared, measured.encoded[read], max_drop=max_drop)
        found |= {"label_agreement": parity.agreement, "max_difference": parity.max_difference}
    return found


def _advise(document: dict[str, Any]) -> str:
    """Return what else to do about a refusal: a drop that is only unproven can be tolerated."""
    tolerated = f", or tolerate that by --max-drop {math.ceil(-100 * document['accuracy']['low'])}"
    return tolerated if document["verdict"] == "unproven" else ", or choose another --quantize"


def _deliver(
    place: Path, out: Path, folder: RunFolder, target: Target, document: dict[str, Any], *, say: Say
) -> dict[str, Any]:
    """Move the export to its folder, or to ``refused`` in it, and note the comparison in the run."""
    refused = bool(document["reasons"])
    goal = out / REFUSED if refused else out
    shutil.rmtree(out / REFUSED, ignore_errors=True)
    if out.exists():
        out.rmdir()
    goal.parent.mkdir(parents=True, exist_ok=True)
    # A private folder of tempfile: colleagues must be able to read an export.
    place.chmod(0o755)
    noted = folder.exports / target.name
    with renew_receipt(folder.path):
        noted.mkdir(parents=True, exist_ok=True)
        for name in (PARITY, PAGE):
            shutil.copyfile(place / name, noted / name)
    place.replace(goal)
    send_changes(folder, say=say)
    if refused:
        hint = f"look at {goal / PAGE}{_advise(document)}"
        raise ModelFileError(f"refused: {'; '.join(document['reasons'])}", where=target.name, hint=hint)
    return document

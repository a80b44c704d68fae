"""Steps of a synchronisation with MLflow: each sends one kind of record, unless it is there already."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import compute_file_sha256, read_json_object
from imagetune.tracking.artifacts import open_artifacts
from imagetune.tracking.content import (
    FINAL_STATES,
    MAX_TAG,
    flatten_recipe,
    list_epoch_metrics,
    list_fold_metrics,
    list_test_metrics,
    name_test_metrics,
    read_image_set,
    read_metric_lines,
    read_recipe,
    read_run_state,
    read_trial_metrics,
    sort_parameters,
)
from imagetune.tracking.description import describe_run
from imagetune.tracking.model_step import send_model
from imagetune.tracking.one_copy import Copy
from imagetune.tracking.packing import has_model
from imagetune.tracking.runs import build_run_tags
from imagetune.tracking.state import TrackingState
from imagetune.tracking.system import list_samples

# MLflow's server takes 100 parameters and 1000 metrics in a request; an epoch adds a few dozen before it is counted.
PARAMETERS_PER_BATCH = 100
METRICS_PER_BATCH = 900

_FILES = (
    run_files.RECIPE,
    run_files.LOCK,
    run_files.SPLITS,
    run_files.AUDIT,
    run_files.SEARCH,
    run_files.SEARCH_TABLE,
    run_files.WARM_START,
    run_files.BEST_RECIPE,
    run_files.SWEEP_TABLE,
    run_files.BAKEOFF_TABLE,
    run_files.SOUP,
    run_files.EVALUATION,
    run_files.REPORT,
    run_files.MODEL_CARD,
    run_files.LABEL_ERRORS,
    run_files.LABELS,
    run_files.PREDICT_SCRIPT,
    f"{run_files.EXPLANATIONS}/*.jpg",
    f"{run_files.ROBUSTNESS}/*.jpg",
    f"{run_files.PREDICTIONS}/*.csv",
    f"{run_files.PLOTS}/*.png",
    f"{run_files.EXPORTS}/*/*",
)
# They grow with every epoch, and an artifact is sent whole: they wait for the end of the run.
_FINAL_FILES = (run_files.METRICS, run_files.STAGES, run_files.JOURNAL, run_files.RECEIPT)


def send_parameters(copy: Copy) -> int:
    """Send the recipe's values as MLflow parameters, 100 at a time."""
    from mlflow.entities import Param

    # Those that someone has set come first, as MLflow shows parameters in the order in which they came.
    parameters = sort_parameters(flatten_recipe(read_recipe(copy.run_dir)))

    def send() -> None:
        # MLflow's parameters can't change; those that are there stay as they are.
        there = copy.client.get_run(copy.run_id).data.params
        new = [Param(key, value) for key, value in parameters.items() if key not in there]
        for start in range(0, len(new), PARAMETERS_PER_BATCH):
            copy.client.log_batch(copy.run_id, params=new[start : start + PARAMETERS_PER_BATCH])
            copy.tick()

    return copy.once("parameters", _mark(parameters), send) if parameters else 0


def send_tags(copy: Copy) -> int:
    """Send the run's tags and its description."""
    from mlflow.entities import RunTag

    recipe, status = read_recipe(copy.run_dir), read_json_object(copy.run_dir / run_files.STATUS)
    evaluation = read_json_object(copy.run_dir / run_files.EVALUATION)
    metrics, images = list_test_metrics(evaluation), read_image_set(copy.run_dir, recipe)
    # A search's recipe has the defaults of model and stages, not what was best: that is in the search's own note.
    about = {} if (copy.run_dir / run_files.SEARCH).exists() else recipe
    described = describe_run(about, status, evaluation, metrics, images)
    text = "\n\n".join(part for part in (copy.state.note, described) if part)
    tags = build_run_tags(copy.run_dir, copy.state, recipe, status, evaluation)
    tags["mlflow.note.content"] = text[:MAX_TAG]
    rows = [RunTag(key, value) for key, value in tags.items()]
    return copy.once("tags", _mark(tags), lambda: copy.client.log_batch(copy.run_id, tags=rows))


def send_images(copy: Copy) -> int:
    """Send the name, fingerprint and counts of the image set as the run's data set."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    images = read_image_set(copy.run_dir, read_recipe(copy.run_dir))
    if images is None:
        return 0
    data = Dataset(
        name=images.name,
        digest=images.digest,
        source_type="local",
        source=json.dumps({"uri": images.source}),
        profile=json.dumps({**images.counts, "classes": images.classes}),
    )
    inputs = [DatasetInput(data, [InputTag("mlflow.data.context", "training")])]
    return copy.once("images", images.digest, lambda: copy.client.log_inputs(copy.run_id, datasets=inputs))


def send_lines(copy: Copy) -> int:
    """Send the training and validation metrics of each epoch, with the epoch as their step."""
    from mlflow.entities import Metric

    first = copy.state.lines_sent
    # An epoch that ended since the times were noted goes with the next call.
    lines = read_metric_lines(copy.run_dir)[first : len(copy.state.line_times)]
    batch: list[Metric] = []
    for place, line in enumerate(lines, start=first):
        when, epoch = copy.state.line_times[place], int(line.get("epoch") or place + 1)
        batch += [Metric(name, value, when, epoch) for name, value in list_epoch_metrics(line).items()]
        if len(batch) >= METRICS_PER_BATCH or line is lines[-1]:
            copy.client.log_batch(copy.run_id, metrics=batch)
            # Only whole epochs are counted, so that an epoch is never half sent.
            batch, copy.state.lines_sent = [], place + 1
            copy.save()
    return len(lines)


def send_files(copy: Copy) -> int:
    """Send new and changed files of the run folder as artifacts."""
    files = {name: (path, compute_file_sha256(path)) for name, path in list_files(copy.run_dir)}
    new = {name: found for name, found in files.items() if copy.state.sent.get(f"file {name}") != found[1]}
    if not new:
        return 0
    artifacts = open_artifacts(copy.uri, str(copy.client.get_run(copy.run_id).info.artifact_uri))
    for name, (path, digest) in new.items():
        copy.once(f"file {name}", digest, partial(artifacts.log_artifact, str(path), name.rpartition("/")[0] or None))
    return len(new)


def send_metrics(copy: Copy) -> int:
    """Send the test metrics as metrics of the run and of its logged model, and a trial's objective.

    A search has those of its winner: in a list of runs it stands beside trainings.
    """
    from mlflow.entities import Metric

    searched = (copy.run_dir / run_files.SEARCH).exists()
    path = copy.run_dir / (run_files.BEST if searched else "") / run_files.EVALUATION
    values = {**copy.state.metrics, **name_test_metrics(list_test_metrics(read_json_object(path)))}
    if not values:
        return 0
    when = int(_seconds_of_metrics(copy, path) * 1000)
    # None before the model was logged; the mark below changes with it, so that the metrics are sent again, for the
    # model.
    model_id = copy.state.sent.get("model id")
    # At step 0 MLflow takes a metric for a single one: it compares runs by bars, not by lines of one point.
    metrics = [Metric(name, value, when, 0, model_id=model_id) for name, value in values.items()]
    mark = _mark({**values, "model": model_id})
    return copy.once("metrics", mark, lambda: copy.client.log_batch(copy.run_id, metrics=metrics))


def _seconds_of_metrics(copy: Copy, evaluation: Path) -> float:
    """Return the timestamp of the test metrics, in seconds since 1970.

    Of two metrics with one time and step MLflow shows the larger, not the later; the objective of a search falls when
    the finalists' other seeds are less lucky.
    """
    if evaluation.exists():
        return evaluation.stat().st_mtime
    return time.time() if "metrics" in copy.state.sent else (copy.run_dir / run_files.STATUS).stat().st_mtime


def send_folds(copy: Copy) -> int:
    """Send the cross-validated metrics to the parent run; each fold's own run has its metrics besides."""
    from mlflow.entities import Metric

    path = copy.run_dir / run_files.EVALUATION
    found = list_fold_metrics(read_json_object(path))
    if not found:
        return 0
    when = int(path.stat().st_mtime * 1000)
    metrics = [Metric(name, value, when, step) for name, value, step in found]
    return copy.once("folds", _mark(found), lambda: copy.client.log_batch(copy.run_id, metrics=metrics))


def send_trials(copy: Copy) -> int:
    """Send the objective of a search's trials, and the best so far, with the number of ended trials as their step."""
    from mlflow.entities import Metric

    there = int(copy.state.sent.get("trials", "0"))
    new = [found for found in read_trial_metrics(copy.run_dir) if found[0] > there]
    # Half of a batch, as each trial has two metrics.
    for start in range(0, len(new), METRICS_PER_BATCH // 2):
        part = new[start : start + METRICS_PER_BATCH // 2]
        metrics = [Metric(name, value, when, step) for step, values, when in part for name, value in values.items()]
        copy.client.log_batch(copy.run_id, metrics=metrics)
        copy.state.sent["trials"] = str(part[-1][0])
        copy.save()
    return len(new)


def send_system(copy: Copy) -> int:
    """Send the system metrics that were sampled since."""
    from mlflow.entities import Metric

    there = int(copy.state.sent.get("system", "0"))
    new = list_samples(copy.run_dir, there)
    # A quarter of a batch, as each sample has four metrics.
    for start in range(0, len(new), METRICS_PER_BATCH // 4):
        part = new[start : start + METRICS_PER_BATCH // 4]
        metrics = [Metric(name, value, when, step) for step, values, when in part for name, value in values.items()]
        copy.client.log_batch(copy.run_id, metrics=metrics)
        copy.state.sent["system"] = str(part[-1][0] + 1)
        copy.save()
    return len(new)


def send_status(copy: Copy) -> int:
    """Send the run's state, as the last step: a run that MLflow calls finished is there completely."""
    state = read_run_state(copy.run_dir)

    def send() -> None:
        if state in FINAL_STATES:
            # When the run ended, not when this copy of it did.
            ended = int((copy.run_dir / run_files.STATUS).stat().st_mtime * 1000)
            copy.client.set_terminated(copy.run_id, state, ended)
        else:
            copy.client.update_run(copy.run_id, status=state)

    return copy.once("status", state, send)


STEPS: tuple[Callable[[Copy], int], ...] = (
    send_parameters,
    send_tags,
    send_images,
    send_lines,
    send_files,
    send_model,
    send_metrics,
    send_folds,
    send_trials,
    send_system,
    send_status,
)


def list_files(run_dir: Path) -> list[tuple[str, Path]]:
    """Return artifact path and path of every file of the run folder that MLflow gets at this moment."""
    patterns = _FILES + (_FINAL_FILES if read_run_state(run_dir) in FINAL_STATES else ())
    found = [path for pattern in patterns for path in sorted(run_dir.glob(pattern)) if path.is_file()]
    return [(path.relative_to(run_dir).as_posix(), path) for path in found]


def count_pending(run_dir: Path, state: TrackingState) -> int:
    """Return how many records wait in the run folder; nothing is asked of the store."""
    lines = max(0, len(read_metric_lines(run_dir)) - state.lines_sent)
    files = sum(state.sent.get(f"file {name}") != compute_file_sha256(path) for name, path in list_files(run_dir))
    model = run_dir / run_files.KERAS_MODEL
    waits = state.log_model and has_model(run_dir) and state.sent.get("model") != compute_file_sha256(model)
    trials = sum(step > int(state.sent.get("trials", "0")) for step, _, _ in read_trial_metrics(run_dir))
    rest = ("parameters" not in state.sent) + (state.sent.get("status") != read_run_state(run_dir))
    return lines + trials + files + waits + rest


def _mark(value: object) -> str:
    """Return a fingerprint of what is sent: SHA-256 of it as JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

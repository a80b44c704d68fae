"""The step of a synchronisation that sends the model: created, filled and finished in MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.core.files import compute_file_sha256
from imagetune.tracking.artifacts import open_artifacts
from imagetune.tracking.content import FINAL_STATES, flatten_recipe, read_metric_lines, read_recipe, read_run_state
from imagetune.tracking.one_copy import Copy
from imagetune.tracking.packing import (
    ModelInfo,
    has_model,
    link_into_store,
    list_own_files,
    name_model,
    pack_model,
    read_model_info,
)
from imagetune.tracking.store import check_id, create_once

HASH_TAG = "imagetune.sha256"
"""The tag of a logged model that imagetune made, with the SHA-256 of its model.keras."""


def send_model(copy: Copy) -> int:
    """Send the model as a logged model, by name of its recipe and backbone, when the run has ended."""
    if not copy.state.log_model or read_run_state(copy.run_dir) not in FINAL_STATES or not has_model(copy.run_dir):
        return 0
    digest = compute_file_sha256(copy.run_dir / run_files.KERAS_MODEL)
    return copy.once("model", digest, lambda: _log_model(copy, digest))


def _log_model(copy: Copy, digest: str) -> None:
    from mlflow.entities import LoggedModelOutput

    info = read_model_info(copy.run_dir)
    model = create_once(lambda: _find_model(copy, digest), lambda: _create_model(copy, digest))
    check_id(model.model_id, copy.uri)
    # An interrupted copy has left the model pending: its files are sent again, into the same model.
    if str(model.status) != "READY":
        _upload_model(copy, model, info)
        copy.client.finalize_logged_model(model.model_id, "READY")
    outputs = copy.client.get_run(copy.run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        step = len(read_metric_lines(copy.run_dir))
        copy.client.log_outputs(copy.run_id, [LoggedModelOutput(model.model_id, step)])
    copy.state.sent["model id"] = model.model_id


def _find_model(copy: Copy, digest: str) -> Any:
    """Return the logged model that an interrupted copy left, finished or not; None without one."""
    found = copy.client.search_logged_models(
        [copy.state.experiment_id or "0"], filter_string=f"source_run_id = '{copy.run_id}'"
    )
    return next((model for model in found if model.tags.get(HASH_TAG) == digest), None)


def _create_model(copy: Copy, digest: str) -> Any:
    recipe = read_recipe(copy.run_dir)
    parameters = flatten_recipe(recipe)
    return copy.client.create_logged_model(
        copy.state.experiment_id or "0",
        name=name_model(recipe),
        source_run_id=copy.run_id,
        tags={HASH_TAG: digest},
        params={name: value for name, value in parameters.items() if name.startswith("model.")},
        model_type="image classifier",
    )


def _upload_model(copy: Copy, model: Any, info: ModelInfo) -> None:
    """Send the files of the MLflow model to the place that MLflow gave it."""
    with tempfile.TemporaryDirectory(prefix="imagetune-") as temporary:
        folder = Path(temporary) / "model"
        location = str(model.artifact_location)
        artifacts = open_artifacts(copy.uri, location)
        pack_model(copy.run_dir, folder, info, model_id=model.model_id, run_id=copy.run_id, location=location)
        packed = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        # MLmodel last: what is there with it is complete.
        for name, path in sorted({**packed, **dict(list_own_files(copy.run_dir))}.items(), reverse=True):
            if not (path.is_relative_to(copy.run_dir) and link_into_store(path, location, name)):
                # One at a time: MLflow's thread pools would keep the process from ending when a server hangs.
                artifacts.log_artifact(str(path), name.rpartition("/")[0] or None)
            copy.tick()

"""Runs and models in MLflow as RUN arguments: downloaded into a folder laid out as a run folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.core import run_files
from imagetune.core.secrets import redact_uri
from imagetune.errors import TrackingError
from imagetune.tracking.address import resolve_uri
from imagetune.tracking.artifacts import fetch_artifacts, open_artifacts
from imagetune.tracking.model_step import HASH_TAG
from imagetune.tracking.packing import ARTIFACTS, OWN_FOLDER
from imagetune.tracking.patience import call_patiently
from imagetune.tracking.store import check_id, is_absent, open_client, store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RUN = re.compile(r"runs:/(?P<run>[\w-]+)(/[^/]+)?/?")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)/?")
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[\w-]+)/?")
_LOGGED = re.compile(r"models:/(?P<model>m-[0-9a-f]+)/?")
_EXPECTED = "expected runs:/ID, runs:/ID/MODEL, models:/NAME/VERSION or models:/NAME@ALIAS"
_ENDING = "MLmodel"


@dataclass(frozen=True)
class _Place:
    """A logged model in MLflow and the run that it comes from; either may be unknown."""

    run: Any
    model: Any


def is_mlflow_uri(text: str) -> bool:
    """Return whether a RUN argument is an MLflow address (``runs:/`` or ``models:/``) and not a folder."""
    return text.startswith(("runs:/", "models:/"))


def locate_default_cache() -> Path:
    """Return the cache folder for downloads from MLflow: ``$XDG_CACHE_HOME/imagetune/mlflow``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "imagetune" / "mlflow"


def resolve_run(run: str, *, uri: str | None = None, cache: Path | None = None) -> Path:
    """Download a run or a model from MLflow, and return the folder that holds it.

    Args:
        run: ``runs:/ID``, ``runs:/ID/MODEL``, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or ``models:/m-ID``.
        uri: The store; None means $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder.
        cache: Folder that keeps downloads, by default `locate_default_cache`; a model is downloaded once.

    Returns:
        A folder laid out as a run folder: ``model/`` and ``model.keras``, and recipe, lock, splits, evaluation,
        predictions and report as far as the run has them. A run without a model gives the documents alone.

    Raises:
        TrackingError: Wrong address, no such run or model, a model that imagetune didn't log, or a server that
            doesn't answer.
    """
    if not any(pattern.fullmatch(run) for pattern in (_RUN, _VERSION, _ALIAS, _LOGGED)):
        raise TrackingError("is no address of a run or model", where=run, hint=_EXPECTED)
    store = resolve_uri(uri)
    return call_patiently(lambda: _fetch(run, store, cache or locate_default_cache()), uri=store)


def _fetch(run: str, store: str, cache: Path) -> Path:
    client = open_client(store)
    with store_errors(store):
        place = _find(client, run, store)
        # The ids of both, as one run may have several models, and a registered model may have lost its run.
        ids = (place.run and place.run.info.run_id, place.model and place.model.model_id)
        folder = cache / "-".join(check_id(part, store) for part in ids if part)
        folder.mkdir(parents=True, exist_ok=True)
        if place.run:
            fetch_artifacts(open_artifacts(store, str(place.run.info.artifact_uri)), folder)
        if place.model:
            _fetch_model(place.model, folder, store, run)
    return folder


def _find(client: MlflowClient, uri: str, store: str) -> _Place:
    from mlflow.exceptions import MlflowException

    try:
        if match := _RUN.fullmatch(uri):
            run = client.get_run(match["run"])
            return _Place(run, _find_model(client, run))
        if match := _LOGGED.fullmatch(uri):
            return _find_logged(client, match["model"])
        if match := _ALIAS.fullmatch(uri):
            version = client.get_model_version_by_alias(match["name"], match["alias"])
        else:
            match = _VERSION.fullmatch(uri)
            version = client.get_model_version(match["name"], match["version"]) if match else None
    except MlflowException as error:
        # MLflow calls an id of the wrong form an invalid value, not an absent one.
        if is_absent(error) or getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":
            raise TrackingError(f"{uri} is not in MLflow", where=redact_uri(store), hint=str(error.message)) from None
        raise
    source = str(version.source if version else "")
    logged = _LOGGED.fullmatch(source)
    if logged is None:
        raise TrackingError(f"{uri} was not logged by imagetune: its source is {source!r}", where=redact_uri(store))
    return _find_logged(client, logged["model"])


def _find_logged(client: MlflowClient, model_id: str) -> _Place:
    from mlflow.exceptions import MlflowException

    model = client.get_logged_model(model_id)
    try:
        run = client.get_run(model.source_run_id) if model.source_run_id else None
    except MlflowException as error:
        # A registered model outlives its run.
        if not is_absent(error):
            raise
        run = None
    return _Place(run, model)


def _find_model(client: MlflowClient, run: Any) -> Any:
    """Return the run's latest complete model that imagetune logged, None without one."""
    outputs = run.outputs
    models = [client.get_logged_model(output.model_id) for output in (outputs.model_outputs if outputs else ())]
    # A model without READY is one whose upload broke off.
    ours = [model for model in models if HASH_TAG in model.tags and str(model.status) == "READY"]
    return max(ours, key=lambda model: model.creation_timestamp, default=None)


def _fetch_model(model: Any, folder: Path, store: str, uri: str) -> None:
    # A logged model never changes: what is complete here isn't asked for again.
    if (folder / _ENDING).exists():
        return
    # In the same folder, so that the moves below stay on one file system and are atomic.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tmp-") as temporary:
        fetched = Path(temporary)
        fetch_artifacts(open_artifacts(store, str(model.artifact_location)), fetched)
        if not (fetched / OWN_FOLDER / "manifest.json").exists():
            hint = "models that imagetune logs have one; other Keras models open with mlflow.keras.load_model"
            raise TrackingError(f"the model has no {OWN_FOLDER}/manifest.json", where=uri, hint=hint)
        # What a download that broke off between the moves has left: `replace` takes no folder with files in it.
        shutil.rmtree(folder / run_files.MODEL, ignore_errors=True)
        (fetched / OWN_FOLDER).replace(folder / run_files.MODEL)
        (fetched / ARTIFACTS / run_files.KERAS_MODEL).replace(folder / run_files.KERAS_MODEL)
        # It comes last and marks the model as complete.
        (fetched / _ENDING).replace(folder / _ENDING)

"""A finished run served over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagetune.core.documents import name_foreign_document
from imagetune.core.files import read_bounded_text
from imagetune.core.messages import Say, say_nothing
from imagetune.errors import RecipeError
from imagetune.run_folder.folder import RunFolder, open_run_folder
from imagetune.run_folder.reader import read_evaluation
from imagetune.serving.certificate import describe_export, is_export
from imagetune.serving.drift.reference import DriftReference, read_drift_reference, read_exported_reference
from imagetune.serving.server import run_server
from imagetune.serving.settings import LOOPBACK, ServerSettings
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run

_MAX_CARD_BYTES = 1 << 20
_MAX_TOKEN_BYTES = 4096
_MIN_TOKEN_CHARACTERS = 16


def serve(
    run: str, settings: ServerSettings, *, say: Say = say_nothing, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Serve the model of a finished run until the process is asked to stop.

    Args:
        run: A run folder, the folder of an export, or a runs:/ or models:/ address.
        settings: Address, processes and limits.
        say: Receives a warning where anybody on the network could send images.
        on_ready: Is told the address, once requests are answered.

    Raises:
        ModelFileError: It is neither a finished run nor an export that was accepted, or its model is corrupted.
        DataError: Its predictions for the validation images can't be read.
        TrackingError: The address leads nowhere.
        ResourceError: The address can't be listened on.
    """
    folder, about, drift = _open(run)
    if settings.token is None and settings.host not in LOOPBACK:
        say("warning", f"whoever reaches {settings.host} can use this server: give --token-file, or a proxy in front")
    run_server(folder, about, settings, drift=drift, on_ready=on_ready)


def _open(run: str) -> tuple[Path, dict[str, Any], DriftReference | None]:
    """Return the folder of a run or an export, what a server says of it, and what its predictions are compared with."""
    if not is_mlflow_uri(run) and is_export(Path(run)):
        return Path(run), describe_export(Path(run)), read_exported_reference(Path(run))
    folder = open_run_folder(resolve_run(run) if is_mlflow_uri(run) else Path(run))
    identity = run if is_mlflow_uri(run) else folder.path.resolve().name
    with name_foreign_document(folder.evaluation, "the evaluation"):
        return folder.path, describe_run(folder, identity), read_drift_reference(folder)


def describe_run(folder: RunFolder, identity: str) -> dict[str, Any]:
    """Return what a server says of a run: its id, its card, and each tested metric with its interval.

    Raises:
        ModelFileError: evaluation.json isn't what imagetune writes.
    """
    splits = read_evaluation(folder.evaluation).get("splits", {})
    split = next((name for name in ("test", "val") if splits.get(name)), None)
    metrics = splits[split].get("metrics", {}) if split else {}
    card = read_bounded_text(folder.model_card, max_bytes=_MAX_CARD_BYTES) if folder.model_card.is_file() else None
    return {
        "id": identity,
        "split": split,
        "metrics": {name: {key: found.get(key) for key in ("value", "low", "high")} for name, found in metrics.items()},
        "card": card,
    }


def read_token(file: Path) -> str:
    """Return the bearer token in a file: its only line.

    Raises:
        RecipeError: It can't be read, or is no token that could not be guessed.
    """
    try:
        token = read_bounded_text(file, max_bytes=_MAX_TOKEN_BYTES).strip()
    except (OSError, ValueError) as error:
        hint = "give a file with the token alone"
        raise RecipeError(f"can't be read: {error}", where=str(file), hint=hint) from error
    if len(token) < _MIN_TOKEN_CHARACTERS or not token.isascii() or len(token.split()) != 1:
        what = f"holds no token: expected one word of {_MIN_TOKEN_CHARACTERS} or more ASCII characters"
        hint = "write one with: python -c 'import secrets; print(secrets.token_urlsafe())' > FILE"
        raise RecipeError(what, where=str(file), hint=hint)
    return token

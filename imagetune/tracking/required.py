"""Required tracking: whether the store answers, asked before a run makes its folder."""

from __future__ import annotations

import threading

from imagetune.core.secrets import redact_uri
from imagetune.errors import TrackingError
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.tracking.address import resolve_uri
from imagetune.tracking.store import open_client

# The 15 seconds that a required server is given, less the time to report that it didn't answer.
REQUIRED_WITHIN_SECONDS = 14.0
"""How long a recipe that requires tracking waits for its server."""


def require_store(config: TrackingConfig, *, timeout_seconds: float = REQUIRED_WITHIN_SECONDS) -> None:
    """Wait until a store that the recipe requires answers; return at once where it requires none.

    Raises:
        TrackingError: It can't be reached, or doesn't answer within this time.
    """
    if not (config.required and config.to_mlflow):
        return
    uri = resolve_uri(config.uri)
    failures: list[TrackingError] = []

    def attempt() -> None:
        try:
            open_client(uri)
        except TrackingError as error:
            failures.append(error)

    # A daemon: a server that hangs must not keep the process from ending.
    thread = threading.Thread(target=attempt, name="imagetune-required", daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if thread.is_alive():
        failures.append(TrackingError(f"there was no answer within {timeout_seconds:.0f} s", where=redact_uri(uri)))
    if failures:
        raise build_required_error(failures[0])


def build_required_error(error: TrackingError) -> TrackingError:
    """Return the error of a store as that of a run which requires it."""
    hint = "start the server, or set tracking.required to false to keep the records in the run folder"
    return TrackingError(f"tracking is required, but: {error.what}", where=error.where, hint=hint)

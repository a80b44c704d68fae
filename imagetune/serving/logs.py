"""The log of a server: a line of JSON for each event, without images, names of files, tokens or addresses of people."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any


def log_event(event: str, **values: Any) -> None:
    """Write a line of the log to standard output.

    Args:
        event: What has happened, in a word.
        **values: Plain JSON values.
    """
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        sys.stdout.write(json.dumps({"time": moment, "event": event, **values}) + "\n")
        sys.stdout.flush()
    except (OSError, ValueError):
        # A log that nobody can receive any more, such as a closed pipe, stops no server.
        pass


class JsonHandler(logging.Handler):
    """Handler that writes messages of libraries as events."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, with the traceback of an exception."""
        problem = record.exc_info[1] if record.exc_info else None
        reason = {} if problem is None else {"traceback": "".join(traceback.format_exception(problem))}
        message = record.getMessage().splitlines() or [""]
        log_event("message", level=record.levelname.lower(), source=record.name, message=message[0], **reason)

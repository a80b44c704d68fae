"""Progress messages of commands to their user."""

from __future__ import annotations

import logging
from typing import Protocol


class Say(Protocol):
    """Callback for progress messages, which decides whether and how they are displayed."""

    def __call__(self, topic: str, text: str, /) -> None:
        """Display a message.

        Args:
            topic: Its topic in one or two words, such as ``data`` or ``warning``.
            text: The message, without a line break.
        """


def say_nothing(_topic: str, _text: str, /) -> None:
    """Discard a message: the default of the Python API."""


def log_message(topic: str, text: str, /) -> None:
    """Give a message to the logger ``imagetune``, for whoever has set up logging."""
    level = logging.WARNING if topic in ("warning", "error") else logging.INFO
    logging.getLogger("imagetune").log(level, "%s: %s", topic, text)

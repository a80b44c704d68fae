"""Progress messages of commands to their user."""

from __future__ import annotations

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

"""What a command tells its user while it works."""

from __future__ import annotations

from typing import Protocol


class Say(Protocol):
    """Hears what happens; how it is laid out on a screen, or whether it is shown at all, is its own affair."""

    def __call__(self, topic: str, text: str, /) -> None:
        """Take one message.

        Args:
            topic: One or two words that say what it is about, such as ``data`` or ``warning``.
            text: The message, without a line break.
        """


def say_nothing(_topic: str, _text: str, /) -> None:
    """Drop a message: the default of the Python API."""

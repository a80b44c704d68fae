"""What a look at the data found: a code, a severity and words for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
Policy = Literal["error", "warn", "ignore"]

_SEVERITIES: dict[Policy, Severity] = {"error": "error", "warn": "warning", "ignore": "note"}


@dataclass(frozen=True)
class Finding:
    """One thing that was found, about any number of pictures.

    Attributes:
        code: A stable name for scripts, such as ``bad-picture``.
        severity: ``error`` stops a fit, ``warning`` should be looked at, ``note`` is for information.
        title: One line with the count in it.
        explanation: Why it matters, or the reason of each path.
        paths: Every path concerned, never a selection.
        hint: What to do about it.
        groups: The paths again where they belong together: the copies of one picture, for example.
        reasons: What is wrong with each path, where that differs from one to the next.
    """

    code: str
    severity: Severity
    title: str
    explanation: str = ""
    paths: tuple[str, ...] = ()
    hint: str = ""
    groups: tuple[tuple[str, ...], ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the finding as plain JSON values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "explanation": self.explanation,
            "hint": self.hint,
            "paths": list(self.paths),
            "groups": [list(group) for group in self.groups],
            "reasons": dict(self.reasons),
        }


def severity_of(policy: Policy) -> Severity:
    """Return the severity that a recipe's ``error | warn | ignore`` asks for; ignored findings stay as notes."""
    return _SEVERITIES[policy]


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 picture`` or ``2,000 pictures``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def shortened(words: Iterable[str], *, most: int = 5) -> str:
    """Return the words with commas between, and how many more there are."""
    listed = list(words)
    rest = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest

"""What a test had to reach, made an error where it was missed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from imagetune.errors import GateError


class Tested(Protocol):
    """A run with the requirements that its test missed."""

    @property
    def folder(self) -> Path:
        """The run folder."""

    @property
    def missed(self) -> tuple[str, ...]:
        """Bars of ``evaluate.require`` that the test missed, and by how much."""


def enforce_requirements(result: Tested) -> None:
    """Raise GateError if the test missed a requirement of ``evaluate.require``; the run is complete all the same."""
    if result.missed:
        hint = "the run is complete and can be reviewed"
        raise GateError("; ".join(result.missed), where=str(result.folder), hint=hint)


def check_requirements(document: Mapping[str, Any], *, where: str) -> None:
    """Raise GateError if a test missed a requirement, saying by how much.

    Args:
        document: From `imagetune.commands.evaluate.evaluate`.
        where: The run.
    """
    missed = [requirement["message"] for requirement in document.get("requirements", []) if not requirement["met"]]
    if missed:
        raise GateError("; ".join(missed), where=where)

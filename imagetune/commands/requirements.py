"""Requirements on test metrics (``evaluate.require``), enforced: a missed one is an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from imagetune.errors import GateError


class TestedRun(Protocol):
    """A tested run: its folder, and the requirements that its metrics missed."""

    @property
    def folder(self) -> Path:
        """The run folder."""

    @property
    def missed(self) -> tuple[str, ...]:
        """A sentence for each missed requirement of ``evaluate.require``, which says by how much."""


def enforce_requirements(result: TestedRun) -> None:
    """Raise GateError if the test missed a requirement of ``evaluate.require``; the run is complete all the same."""
    if result.missed:
        hint = "the run is complete and can be reviewed"
        raise GateError("; ".join(result.missed), where=str(result.folder), hint=hint)


def check_requirements(document: Mapping[str, Any], *, where: str) -> None:
    """Raise GateError if the metrics of a document miss a requirement; its message says by how much.

    Args:
        document: The result of `imagetune.commands.evaluate.evaluate`.
        where: The run, for the message.
    """
    missed = [requirement["message"] for requirement in document.get("requirements", []) if not requirement["met"]]
    if missed:
        raise GateError("; ".join(missed), where=where)

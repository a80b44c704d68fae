"""A run folder on its way to an MLflow run: what each step of a synchronisation is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.tracking.state import TrackingState, write_state

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Copy:
    """A run folder on its way to an MLflow run.

    Attributes:
        run_dir: The run folder.
        uri: Complete address of the store, secrets included.
        state: What is in MLflow already; steps change and save it.
        client: The connection.
        tick: Called after everything that came through.
    """

    run_dir: Path
    uri: str
    state: TrackingState
    client: MlflowClient
    tick: Callable[[], None]

    @property
    def run_id(self) -> str:
        """Id of the MLflow run."""
        return self.state.run_id or ""

    def save(self) -> None:
        """Write the tracking state to tracking.json, and report progress."""
        write_state(self.run_dir, self.state)
        self.tick()

    def once(self, name: str, mark: str, send: Callable[[], object]) -> int:
        """Call ``send`` unless the same content was sent before, and return how many records were sent.

        Args:
            name: What is sent: ``tags``, ``file recipe.yaml``, ...
            mark: Fingerprint of its content.
            send: Sends it.

        Returns:
            1, or 0 where ``mark`` is what was sent last under this name.
        """
        if self.state.sent.get(name) == mark:
            return 0
        send()
        # Noted after it was sent: a kill in between sends it twice, which changes nothing, and never leaves it out.
        self.state.sent[name] = mark
        self.save()
        return 1

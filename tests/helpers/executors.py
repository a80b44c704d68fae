"""Executor that runs trials in this process, for quick tests of a search's loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imagetune.search.executors.protocol import Outcome, Task, Work


class Here:
    """An executor that runs each task in the caller's process, when it is waited for.

    Args:
        work: Runs a trial.
        slots: How many tasks are open at a time.
        pick: Which of the open tasks ends next; by default the first that was started.
    """

    def __init__(self, work: Work, *, slots: int = 1, pick: Callable[[int], int] = lambda _open: 0) -> None:
        self.slots = slots
        self.max_open = 0
        self._work = work
        self._pick = pick
        self._open: list[Task] = []

    def start(self, task: Task) -> None:
        self._open.append(task)
        self.max_open = max(self.max_open, len(self._open))
        assert len(self._open) <= self.slots

    def wait(self, timeout_seconds: float) -> Sequence[tuple[Task, Outcome]]:
        task = self._open.pop(self._pick(len(self._open)))
        return [(task, self._work(task))]

    def close(self) -> None:
        self._open.clear()

"""Dynamic batching: images wait in one bounded queue, and whichever process is free takes its share of them.

No timer is needed: a batch is a process's share of what has come while all were busy. Neither LitServe nor mosec could
be used for it (docs/serving.md).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from imagetune.serving.model_process import Task

Reply = dict[str, Any]


class QueueFullError(Exception):
    """As many images as may wait are waiting."""


@dataclass(eq=False)
class Job:
    """An image that waits for the model.

    Attributes:
        task: What the model is to do with it.
        upload: Name and content of its file.
        reply: What is answered; cancelled where nobody waits for it any more.
        deaths: Number of processes that have died while they computed it.
    """

    task: Task
    upload: tuple[str, bytes]
    reply: asyncio.Future[Reply]
    deaths: int = 0


class BatchQueue:
    """The images that wait.

    Args:
        capacity: Most images that wait.
        processes: Number of processes that take from it; whoever runs them sets it.
        note_length: Is told the number of images whenever it has changed.
    """

    def __init__(self, capacity: int, note_length: Callable[[int], None], *, processes: int = 1) -> None:
        self._capacity, self._note_length, self.processes = capacity, note_length, processes
        self._queue: asyncio.Queue[Job] = asyncio.Queue()

    def __len__(self) -> int:
        """Return the number of images that wait."""
        return self._queue.qsize()

    def put(self, task: Task, uploads: Sequence[tuple[str, bytes]]) -> list[asyncio.Future[Reply]]:
        """Return the replies to come to image files, which wait from now on; one that is cancelled isn't computed.

        Raises:
            QueueFullError: There is no room for all of them.
        """
        if len(self) + len(uploads) > self._capacity:
            raise QueueFullError
        jobs = [Job(task, upload, asyncio.get_running_loop().create_future()) for upload in uploads]
        for job in jobs:
            self._queue.put_nowait(job)
        self._note_length(len(self))
        return [job.reply for job in jobs]

    async def take(self, max_batch: int, died: asyncio.Future[None]) -> list[Job]:
        """Return one process's share of the images that wait, as soon as there are some.

        Args:
            max_batch: Most images to return.
            died: Is done where the process has died: then there are none.
        """
        getting = asyncio.ensure_future(self._queue.get())
        either: set[asyncio.Future[Any]] = {getting, died}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                getting.cancel()
        if not getting.done() or getting.cancelled():
            return []
        batch = [getting.result()]
        # Those that are busy get as many: they will soon be free, and replies to a larger batch come later.
        share = math.ceil((1 + len(self)) / self.processes)
        while len(batch) < min(share, max_batch) and len(self):
            batch.append(self._queue.get_nowait())
        self._note_length(len(self))
        return batch

"""Dynamic batching: images wait in one bounded queue, and whichever process is free takes its share of them.

No timer is needed: a batch is what has come while all processes were busy. Neither LitServe nor mosec could be used
for it (docs/serving.md).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from imagetune.errors import ImagetuneError
from imagetune.serving.metrics import Metrics
from imagetune.serving.model_process import ModelProcess, Task

Reply = dict[str, Any]
# A process that died takes the model's loading time to come back, and more where it dies again at once.
_MAX_PAUSE_SECONDS = 30.0


class QueueFullError(Exception):
    """As many images as may wait are waiting."""


class ProcessDiedError(Exception):
    """The process that computed an image has died of it twice."""


@dataclass(eq=False)
class _Job:
    task: Task
    upload: tuple[str, bytes]
    reply: asyncio.Future[Reply]
    deaths: int = field(default=0)


class ModelPool:
    """The processes that hold the model, and the queue before them.

    Args:
        start_process: Starts one and returns it when the model is loaded.
        workers: Number of processes.
        max_batch: Most images of a batch.
        capacity: Most images that wait.
        timeout_seconds: Time after which a process that computes is ended.
        metrics: What is counted.
    """

    def __init__(
        self,
        start_process: Callable[[], ModelProcess],
        *,
        workers: int,
        max_batch: int,
        capacity: int,
        timeout_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._start_process, self._workers, self._capacity = start_process, workers, capacity
        self.max_batch, self._timeout_seconds, self._metrics = max_batch, timeout_seconds, metrics
        self._queue: asyncio.Queue[_Job] = asyncio.Queue()
        self._threads = ThreadPoolExecutor(workers, "imagetune-model")
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = self._idle = 0
        self._stopping = False
        self._seconds_an_image = 0.1

    async def start(self) -> dict[str, Any]:
        """Start the processes and return what the first of them says of the model, as soon as it has loaded it.

        Raises:
            ImagetuneError: The model can't be loaded.
        """
        first: ModelProcess = await self._in_thread(self._open)
        self.max_batch = min(self.max_batch, first.description["max_batch"])
        self._tasks = [asyncio.create_task(self._keep(first if not n else None)) for n in range(self._workers)]
        return first.description

    @property
    def is_ready(self) -> bool:
        """Whether a process has the model loaded."""
        return self._ready > 0

    @property
    def wait_seconds(self) -> int:
        """Time after which there will be room again, by what images have taken lately; at least 1."""
        return max(1, math.ceil(self._queue.qsize() * self._seconds_an_image / self._workers))

    def put(self, task: Task, uploads: Sequence[tuple[str, bytes]]) -> list[asyncio.Future[Reply]]:
        """Return the replies to come to image files, which wait from now on; one that is cancelled isn't computed.

        Raises:
            QueueFullError: There is no room for all of them.
        """
        if self._queue.qsize() + len(uploads) > self._capacity:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        jobs = [_Job(task, upload, loop.create_future()) for upload in uploads]
        for job in jobs:
            self._queue.put_nowait(job)
        self._metrics.queued_images.set(self._queue.qsize())
        return [job.reply for job in jobs]

    async def stop(self) -> None:
        """End the processes; what still waits is not computed."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _keep(self, process: ModelProcess | None) -> None:
        """Keep one process running, and the images going that it takes."""
        suspects: list[_Job] = []
        pause = 1.0
        while True:
            try:
                process = process or await self._in_thread(self._open)
            except ImagetuneError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
                continue
            pause = 1.0
            try:
                suspects = await self._feed(process, suspects)
            finally:
                # Without waiting: a process that computes for a client that is gone is not waited for either.
                process.stop(at_once=True)
                process = None
            self._metrics.worker_restarts.inc()

    async def _feed(self, process: ModelProcess, suspects: list[_Job]) -> list[_Job]:
        """Give images to a process until it dies, and return those that it may have died of."""
        loop = asyncio.get_running_loop()
        died: asyncio.Future[None] = loop.create_future()
        loop.add_reader(process.sentinel, _note_death, died)
        self._count_ready(+1)
        try:
            while True:
                # One at a time, so that those that the process didn't die of are answered.
                batch = [suspects.pop(0)] if suspects else await self._take(died)
                if not batch:
                    return suspects
                if not await self._compute(process, batch):
                    return [*(job for job in batch if not job.reply.done()), *suspects]
        finally:
            loop.remove_reader(process.sentinel)
            self._count_ready(-1)

    async def _take(self, died: asyncio.Future[None]) -> list[_Job]:
        """Return this process's share of the images that wait, as soon as there are some; none where it has died."""
        getting = asyncio.ensure_future(self._queue.get())
        either: set[asyncio.Future[Any]] = {getting, died}
        self._idle += 1
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._idle -= 1
            if not getting.done():
                getting.cancel()
        if not getting.done() or getting.cancelled():
            return []
        batch = [getting.result()]
        share = math.ceil((1 + self._queue.qsize()) / (1 + self._idle))
        while len(batch) < min(share, self.max_batch) and not self._queue.empty():
            batch.append(self._queue.get_nowait())
        self._metrics.queued_images.set(self._queue.qsize())
        return batch

    async def _compute(self, process: ModelProcess, batch: list[_Job]) -> bool:
        """Answer images, and return whether the process is still alive."""
        loop = asyncio.get_running_loop()
        for task in ("predict", "explain"):
            # Those that nobody waits for any more are left out.
            jobs = [job for job in batch if job.task == task and not job.reply.done()]
            if not jobs:
                continue
            begun = loop.time()
            try:
                uploads = [job.upload for job in jobs]
                call = partial(process.call, task, uploads, timeout_seconds=self._timeout_seconds)
                replies = await self._in_thread(call)
            except (EOFError, OSError, TimeoutError):
                for job in jobs:
                    job.deaths += 1
                    if job.deaths > 1 and not job.reply.done():
                        job.reply.set_exception(ProcessDiedError())
                return False
            self._note(task, len(jobs), loop.time() - begun)
            for job, reply in zip(jobs, replies, strict=True):
                if not job.reply.done():
                    job.reply.set_result(reply)
        return True

    def _note(self, task: str, images: int, seconds: float) -> None:
        self._metrics.batch_images.observe(images)
        self._metrics.batch_seconds.labels(task).observe(seconds)
        if task == "predict":
            self._seconds_an_image += 0.1 * (seconds / images - self._seconds_an_image)

    def _open(self) -> ModelProcess:
        process = self._start_process()
        if self._stopping:
            # Nobody is there any more to take it.
            process.stop(at_once=True)
        return process

    def _count_ready(self, change: int) -> None:
        self._ready += change
        self._metrics.workers_ready.set(self._ready)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _note_death(died: asyncio.Future[None]) -> None:
    if not died.done():
        died.set_result(None)

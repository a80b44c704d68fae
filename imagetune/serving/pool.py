"""The processes that hold the model: started, fed with batches, and replaced when they die or hang."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from imagetune.errors import ImagetuneError
from imagetune.serving.batching import BatchQueue, Job
from imagetune.serving.logs import log_event
from imagetune.serving.metrics import Metrics
from imagetune.serving.model_process import ModelProcess

# Between attempts to start a process, when the model can't be loaded any more.
_MIN_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 30.0


class ProcessDiedError(Exception):
    """The process that computed an image has died of it twice."""


class ModelPool:
    """The processes that hold the model.

    Args:
        start_process: Starts one and returns it when the model is loaded.
        queue: The images that wait for them.
        workers: Number of processes; None for as many as ``cores`` where the model is faster so, else one.
        cores: Number of processes that the CPU can keep busy.
        max_batch: Most images of a batch.
        timeout_seconds: Time after which a process that computes is ended.
        metrics: What is counted.
    """

    def __init__(
        self,
        start_process: Callable[[], ModelProcess],
        queue: BatchQueue,
        *,
        workers: int | None,
        cores: int,
        max_batch: int,
        timeout_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.queue, self._start_process, self._metrics = queue, start_process, metrics
        self._workers, self._cores, self.workers = workers, cores, 0
        self._max_batch, self._timeout_seconds = max_batch, timeout_seconds
        self._threads = ThreadPoolExecutor(workers or cores, "imagetune-model")
        self._tasks: list[asyncio.Task[None]] = []
        self._ready, self._stopping, self._seconds_an_image = 0, False, 0.1

    async def start(self) -> dict[str, Any]:
        """Start the processes and return what the first of them says of the model, as soon as it has loaded it.

        Raises:
            ImagetuneError: The model can't be loaded.
        """
        first: ModelProcess = await self._in_thread(self._open)
        self.workers = self._workers or (self._cores if first.description["parallel"] else 1)
        self.queue.processes = self.workers
        self._max_batch = min(self._max_batch, first.description["max_batch"])
        self._tasks = [asyncio.create_task(self._keep(None if number else first)) for number in range(self.workers)]
        return first.description

    @property
    def is_ready(self) -> bool:
        """Whether a process has the model loaded."""
        return self._ready > 0

    @property
    def wait_seconds(self) -> int:
        """Time after which there will be room again, by what images have taken lately; at least 1."""
        return max(1, math.ceil(len(self.queue) * self._seconds_an_image / max(self.workers, 1)))

    async def stop(self) -> None:
        """End the processes; what still waits is not computed."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False)

    async def _keep(self, process: ModelProcess | None) -> None:
        """Keep one process running and busy, and put another in its place when it dies."""
        suspects: list[Job] = []
        pause = _MIN_PAUSE_SECONDS
        while True:
            try:
                process = process or await self._in_thread(self._open)
            except ImagetuneError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
                continue
            pause = _MIN_PAUSE_SECONDS
            try:
                suspects = await self._feed(process, suspects)
            finally:
                # What it computes is for nobody, or takes too long.
                process.stop()
                process = None
            self._metrics.worker_restarts.inc()
            log_event("model_process_died")

    async def _feed(self, process: ModelProcess, suspects: list[Job]) -> list[Job]:
        """Give batches to a process until it dies, and return the images that it may have died of."""
        loop = asyncio.get_running_loop()
        died: asyncio.Future[None] = loop.create_future()
        loop.add_reader(process.sentinel, _note_death, died)
        self._count_ready(+1)
        try:
            while True:
                # One at a time, so that those that no process dies of are answered.
                batch = [suspects.pop(0)] if suspects else await self.queue.take(self._max_batch, died)
                if not batch:
                    return suspects
                if not await self._compute(process, batch):
                    return [*(job for job in batch if not job.reply.done()), *suspects]
        finally:
            loop.remove_reader(process.sentinel)
            self._count_ready(-1)

    async def _compute(self, process: ModelProcess, batch: list[Job]) -> bool:
        """Answer images, and return whether the process is still alive."""
        loop = asyncio.get_running_loop()
        for task in ("predict", "explain"):
            # Those that nobody waits for any more are left out.
            jobs = [job for job in batch if job.task == task and not job.reply.done()]
            if not jobs:
                continue
            begun, uploads = loop.time(), [job.upload for job in jobs]
            try:
                call = partial(process.call, task, uploads, timeout_seconds=self._timeout_seconds)
                replies = await self._in_thread(call)
            except (EOFError, OSError):
                _count_deaths(jobs)
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
            process.stop()
        return process

    def _count_ready(self, change: int) -> None:
        self._ready += change
        self._metrics.workers_ready.set(self._ready)

    async def _in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)


def _note_death(died: asyncio.Future[None]) -> None:
    if not died.done():
        died.set_result(None)


def _count_deaths(jobs: list[Job]) -> None:
    """Note that a process has died of one of these images; of one alone, twice, it is known."""
    for job in jobs:
        job.deaths += 1
        if job.deaths > 1 and not job.reply.done():
            job.reply.set_exception(ProcessDiedError())

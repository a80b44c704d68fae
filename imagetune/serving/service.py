"""What the routes of a server share: its model, its processes, its limits and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request

from imagetune.serving.batching import QueueFullError, Reply
from imagetune.serving.bodies import BodyBuffer
from imagetune.serving.drift.monitor import DriftMonitor
from imagetune.serving.metrics import Metrics
from imagetune.serving.model_process import Task
from imagetune.serving.pool import ModelPool, ProcessDiedError
from imagetune.serving.replies import RequestError
from imagetune.serving.settings import ServerSettings


@dataclass
class Service:
    """A model that is being served.

    Attributes:
        model: What `/v1/model` says: id, version, task, labels, image settings, coverage, card, metrics.
        pool: The processes that hold the model.
        settings: How the server was started.
        metrics: What is counted.
        buffer: The bytes of all bodies in memory.
        draining: Whether the server was asked to stop.
        drift: Watches over the predictions; None where the run has nothing to compare them with.
    """

    model: Mapping[str, Any]
    pool: ModelPool
    settings: ServerSettings
    metrics: Metrics
    buffer: BodyBuffer = field(default_factory=BodyBuffer)
    draining: bool = False
    drift: DriftMonitor | None = None

    async def compute(self, task: Task, uploads: Sequence[tuple[str, bytes]], request: Request) -> list[Reply]:
        """Return what the model says of image files, in their order.

        Raises:
            RequestError: There is no room for them, they take too long, or the process died of one.
            ClientDisconnect: The client has left; its images aren't computed.
        """
        try:
            replies = self.pool.queue.put(task, uploads)
        except QueueFullError as error:
            raise self._refuse("as many images as may wait are waiting") from error
        leaving = asyncio.ensure_future(_wait_for_disconnect(request))
        gathered = asyncio.gather(*replies)
        try:
            seconds = self.settings.limits.prediction_seconds
            either: set[asyncio.Future[Any]] = {gathered, leaving}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if gathered.done():
                return gathered.result()
            if leaving.done():
                raise ClientDisconnect
            raise self._refuse(f"the images took longer than {seconds:g} seconds")
        except ProcessDiedError as error:
            raise RequestError(500, "process_died", "The process that computed an image died of it.") from error
        finally:
            leaving.cancel()
            gathered.cancel()
            with suppress(asyncio.CancelledError, ProcessDiedError):
                await gathered

    def _refuse(self, what: str) -> RequestError:
        retry = {"Retry-After": str(self.pool.wait_seconds)}
        return RequestError(503, "overloaded", f"The server is busy: {what}. Try again.", retry)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass

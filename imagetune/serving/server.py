"""A server's life: its processes start, it listens, and at SIGTERM it answers what has come and ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from imagetune.core.processes import count_usable_cores
from imagetune.errors import ResourceError
from imagetune.serving.app import build_app
from imagetune.serving.batching import BatchQueue
from imagetune.serving.drift.monitor import DriftMonitor
from imagetune.serving.drift.prometheus import DriftCollector
from imagetune.serving.drift.reference import DriftReference
from imagetune.serving.logs import JsonHandler, log_event
from imagetune.serving.metrics import Metrics
from imagetune.serving.model_process import ModelProcess
from imagetune.serving.pool import ModelPool
from imagetune.serving.service import Service
from imagetune.serving.settings import ServerSettings

_BACKLOG = 2048
# Each holds the model and Keras: about half a gigabyte.
_MAX_WORKERS = 4


def run_server(
    folder: Path,
    about: Mapping[str, Any],
    settings: ServerSettings,
    *,
    drift: DriftReference | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve a model until SIGTERM or SIGINT, and return once everything that had come is answered.

    Args:
        folder: The run folder.
        about: What `/v1/model` says beside what the model itself knows; its ``id`` at least.
        settings: How the server is started.
        drift: What the predictions are compared with; None to compare them with nothing.
        on_ready: Is told the address, once requests are answered.

    Raises:
        ResourceError: The address can't be listened on.
        ImagetuneError: The model can't be loaded.
    """
    listener = _listen(settings)
    try:
        asyncio.run(_serve(folder, about, settings, drift, listener, on_ready))
    finally:
        listener.close()


async def _serve(
    folder: Path,
    about: Mapping[str, Any],
    settings: ServerSettings,
    drift: DriftReference | None,
    listener: socket.socket,
    on_ready: Callable[[str], None],
) -> None:
    metrics = Metrics()
    cores = count_usable_cores()
    # On the CPU processes of one thread each take less of it for an image than one process of many (docs/serving.md).
    workers = settings.workers or min(cores, _MAX_WORKERS)
    pool = ModelPool(
        lambda: ModelProcess(folder, threads=max(1, cores // workers), training_images=settings.training_images),
        BatchQueue(settings.limits.queued_images, metrics.queued_images.set),
        workers=settings.workers,
        cores=min(cores, _MAX_WORKERS),
        max_batch=settings.max_batch,
        timeout_seconds=settings.limits.prediction_seconds,
        metrics=metrics,
    )
    try:
        model = {**await pool.start(), **about}
        monitor = None if drift is None else DriftMonitor(drift)
        if monitor is not None:
            metrics.registry.register(DriftCollector(monitor))
        service = Service(model, pool, settings, metrics, drift=monitor)
        server = uvicorn.Server(_configure(service))
        await _run(server, service, listener, on_ready)
    finally:
        await pool.stop()
        log_event("stopped")


async def _run(
    server: uvicorn.Server, service: Service, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    def stop() -> None:
        # The second time what is left isn't waited for.
        server.force_exit, server.should_exit, service.draining = server.should_exit, True, True

    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    # uvicorn's own handlers would raise the signal again at the end; here it means a stop in good order.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    model, workers = service.model, service.pool.workers
    log_event("ready", address=address, model=model["id"], version=model["version"], workers=workers)
    on_ready(address)
    await serving


def _configure(service: Service) -> uvicorn.Config:
    for name in ("uvicorn", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [JsonHandler()] if "." not in name else [], "." in name
        logger.setLevel(logging.WARNING)
    return uvicorn.Config(
        build_app(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        # It bounds the head of a request, which httptools, where installed, doesn't.
        http="h11",
        server_header=False,
        timeout_graceful_shutdown=int(service.settings.limits.drain_seconds),
        backlog=_BACKLOG,
        ws="none",
    )


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where, hint = f"{settings.host}:{settings.port}", "choose another --port, or another --host"
        raise ResourceError(f"can't be listened on: {error.strerror}", where=where, hint=hint) from error
    return listener

"""What a server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "imagetune_requests", "Requests that were answered.", ["path", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "imagetune_request_seconds",
            "Time from a request's head to its reply.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "imagetune_images", "Images of answered requests, predicted or not.", ["outcome"], registry=registry
        )
        self.batch_images = Histogram(
            "imagetune_batch_images",
            "Images that went through the model at a time.",
            buckets=_IMAGES,
            registry=registry,
        )
        self.batch_seconds = Histogram(
            "imagetune_batch_seconds",
            "Time that decoding and computing a batch took.",
            ["task"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queued_images = Gauge("imagetune_queued_images", "Images that wait for the model.", registry=registry)
        self.workers_ready = Gauge(
            "imagetune_workers_ready", "Processes that have the model loaded.", registry=registry
        )
        self.worker_restarts = Counter(
            "imagetune_worker_restarts", "Processes that died or took too long and were replaced.", registry=registry
        )

"""Clients of `imagetune serve` that check every reply, for benchmarks/serving.py and the load tests."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TIMEOUT_SECONDS = 60.0
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sample:
    """A request, and the probabilities that it must be answered with.

    Attributes:
        image: An image file.
        kind: Its media type.
        expected: Probability by class; None to check that there is a prediction alone.
    """

    image: bytes
    kind: str
    expected: Mapping[str, float] | None = None


@dataclass
class Load:
    """What clients have met.

    Attributes:
        seconds: Time to each right reply.
        refused: Number of replies by status but 200.
        wrong: Number of replies with other predictions than expected.
        lost: Number of requests without a reply.
        dropped: Number of connections that clients have dropped on purpose.
    """

    seconds: list[float] = field(default_factory=list)
    refused: Counter[int] = field(default_factory=Counter)
    wrong: int = 0
    lost: int = 0
    dropped: int = 0


def run_clients(
    port: int, samples: Sequence[Sample], *, clients: int, duration_seconds: float, drop_share: float = 0.0
) -> Load:
    """Return what clients meet that each send one request after another.

    Args:
        port: Port of a server on this machine.
        samples: What they send, at random.
        clients: Number of connections.
        duration_seconds: Time in which requests are begun.
        drop_share: Share of requests whose connection is dropped before there is a reply.
    """

    async def work() -> Load:
        load, end = Load(), time.perf_counter() + duration_seconds
        await asyncio.gather(*(_run_client(port, samples, load, end, drop_share, seed) for seed in range(clients)))
        return load

    return asyncio.run(work())


def run_arrivals(port: int, samples: Sequence[Sample], *, rate: float, duration_seconds: float) -> Load:
    """Return what requests meet that arrive at random (Poisson), whether or not earlier ones are answered.

    Args:
        port: Port of a server on this machine.
        samples: What is sent, at random.
        rate: Requests a second.
        duration_seconds: Time in which requests are begun.
    """

    async def work() -> Load:
        load, draw, tasks = Load(), random.Random(0), []
        begun, moment = time.perf_counter(), 0.0
        while (moment := moment + draw.expovariate(rate)) < duration_seconds:
            await asyncio.sleep(begun + moment - time.perf_counter())
            tasks.append(asyncio.create_task(_send_alone(port, draw.choice(samples), load)))
        await asyncio.gather(*tasks)
        return load

    return asyncio.run(work())


async def _run_client(
    port: int, samples: Sequence[Sample], load: Load, end: float, drop_share: float, seed: int
) -> None:
    draw = random.Random(seed)
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while time.perf_counter() < end:
        sample = draw.choice(samples)
        try:
            streams = streams or await asyncio.open_connection("127.0.0.1", port)
            if draw.random() < drop_share:
                streams[1].write(_build_request(sample))
                # Before, while or after the server reads, waits or computes.
                await asyncio.sleep(draw.random() * 0.2)
                streams[1].close()
                streams, load.dropped = None, load.dropped + 1
                continue
            if not await _exchange(streams, sample, load):
                streams[1].close()
                streams = None
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            streams, load.lost = None, load.lost + 1
            await asyncio.sleep(0.1)
    if streams is not None:
        streams[1].close()


async def _send_alone(port: int, sample: Sample, load: Load) -> None:
    try:
        streams = await asyncio.open_connection("127.0.0.1", port)
        await _exchange(streams, sample, load)
        streams[1].close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        load.lost += 1


async def _exchange(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], sample: Sample, load: Load) -> bool:
    """Send a request, note how it was answered, and return whether the connection can be used again."""
    begun = time.perf_counter()
    streams[1].write(_build_request(sample))
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        head = (await streams[0].readuntil(b"\r\n\r\n")).lower()
        status = int(head.split()[1])
        body = await streams[0].readexactly(int(head.split(b"content-length:")[1].split()[0]))
    if status != 200:
        load.refused[status] += 1
        await asyncio.sleep(0.05)
    elif _is_right(json.loads(body)["predictions"], sample):
        load.seconds.append(time.perf_counter() - begun)
    else:
        load.wrong += 1
    return b"connection: close" not in head


def _build_request(sample: Sample) -> bytes:
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {sample.kind}\r\n"
    return f"{head}Content-Length: {len(sample.image)}\r\n\r\n".encode() + sample.image


def _is_right(predictions: list[dict[str, dict[str, float]]], sample: Sample) -> bool:
    (found,) = predictions
    if sample.expected is None:
        return bool(found["probabilities"])
    shown = found["probabilities"]
    return shown.keys() == sample.expected.keys() and all(
        abs(shown[name] - share) < _TOLERANCE for name, share in sample.expected.items()
    )

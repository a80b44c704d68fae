"""Mutated images, decoded in a process that may die: `python -m tests.faults.attack.mutated_images COUNT`.

Whatever a mutation does, the image is decoded or named as unreadable: no other error, no crash, within the bounds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.attack.images import KINDS, encode

MAX_SECONDS = 5.0
MAX_BYTES = 500_000_000
_HUNG_SECONDS = 30
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True)
class Report:
    """What mutated images did.

    Attributes:
        decoded: Images that could be decoded in spite of it.
        refused: Images that were named as unreadable.
        problems: Kind and seed of each image that did anything else, with what it did.
        slowest: Processor seconds of the slowest image, and its seed.
        largest: Most memory in bytes that one image took, and its seed.
    """

    decoded: int
    refused: int
    problems: tuple[str, ...]
    slowest: tuple[float, int]
    largest: tuple[int, int]


def mutate(seed: int) -> tuple[str, bytes]:
    """Return the kind of an image and its bytes with one to eight mutations, which the seed decides."""
    chance = random.Random(seed)
    kind = list(KINDS)[seed % len(KINDS)]
    data = bytearray(_ENCODED[kind])
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at, length = chance.randrange(len(data)), chance.choice((1, 2, 4, 16, 200))
        # Most of what matters stands at the beginning.
        at = chance.randrange(min(len(data), 200)) if chance.random() < 0.5 else at
        match chance.randrange(7):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + length] = chance.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                size = chance.choice((1, 2, 4))
                number = chance.choice(_EXTREMES) & ((1 << 8 * size) - 1)
                data[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
            case 5:
                other = _ENCODED[chance.choice(list(KINDS))]
                data[at : at + length] = other[at : at + length]
            case 6:
                del data[max(1, at) :]
        data = data or bytearray(b"\0")
    return kind, bytes(data)


_ENCODED = {kind: encode(kind, 32) for kind in KINDS}


def try_mutated_images(count: int, *, first: int = 0) -> Report:
    """Return what ``count`` mutated images did, one after the other in a process that is restarted if it dies."""
    decoded = refused = 0
    problems: list[str] = []
    slowest, largest = (0.0, -1), (0, -1)
    seed = first
    while seed < first + count:
        for line in _run_worker(seed, first + count):
            found = json.loads(line)
            seed = found["seed"] + 1
            decoded += found["end"] == "decoded"
            refused += found["end"] == "refused"
            slowest, largest = max(slowest, (found["seconds"], seed - 1)), max(largest, (found["bytes"], seed - 1))
            if found["end"] not in ("decoded", "refused"):
                problems.append(f"{found['kind']} {seed - 1}: {found['end']}")
            if found["seconds"] > MAX_SECONDS or found["bytes"] > MAX_BYTES:
                problems.append(f"{found['kind']} {seed - 1}: {found['seconds']:.1f} s, {found['bytes'] / 1e6:.0f} MB")
        if seed < first + count:
            problems.append(f"{mutate(seed)[0]} {seed}: the process died or hung")
            seed += 1
    return Report(decoded, refused, tuple(problems), slowest, largest)


def _run_worker(start: int, end: int) -> Iterator[str]:
    """Yield what a forked process says about each seed, until it ends or says nothing for half a minute."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            _decode_all(start, end, writing)
        finally:
            os._exit(0)
    os.close(writing)
    previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    try:
        with os.fdopen(reading) as lines:
            signal.alarm(_HUNG_SECONDS)
            for line in lines:
                signal.alarm(_HUNG_SECONDS)
                yield line
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _decode_all(start: int, end: int, writing: int) -> None:
    from imagetune.data.audit.inspection import inspect_image
    from imagetune.data.loading.decode import load_image
    from imagetune.errors import BadImageError
    from imagetune.recipe.sections.data import ImageSettings

    settings = ImageSettings(height=32, width=32)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.png"
        for seed in range(start, end):
            kind, data = mutate(seed)
            path.write_bytes(data)
            before, started = _read_memory("VmRSS"), time.process_time()
            _forget_peak()
            try:
                inspect_image(str(path), background=(255, 255, 255), max_pixels=10**8, descriptors=True)
                load_image(str(path), settings, max_pixels=10**8)
                ended = "decoded"
            except BadImageError:
                ended = "refused"
            except BaseException as error:  # noqa: BLE001 - that is what is looked for
                ended = repr(error)[:200]
            seconds, taken = time.process_time() - started, _read_memory("VmHWM") - before
            found = {"seed": seed, "kind": kind, "end": ended, "seconds": seconds, "bytes": max(0, taken)}
            os.write(writing, (json.dumps(found) + "\n").encode())


def _read_memory(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(key)).split()[1]) * 1024


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if sys.argv[1:] else 10_000
    begun = time.monotonic()
    report = try_mutated_images(wanted)
    print(*report.problems, sep="\n")
    print(f"{wanted} images in {time.monotonic() - begun:.0f} s: {report.decoded} decoded, {report.refused} refused,")
    print(f"{len(report.problems)} with problems; slowest {report.slowest[0]:.2f} s (seed {report.slowest[1]}),")
    print(f"largest {report.largest[0] / 1e6:.0f} MB (seed {report.largest[1]})")
    sys.exit(bool(report.problems))

"""Profile of one epoch of a training, recorded by jax.profiler, as shares of time by kind of work."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax

from imagetune.training.setup.events import EpochRecord, SilentListener

SHOWN = 6


class EpochTrace(SilentListener):
    """A listener that records the second epoch: the first compiles.

    Args:
        folder: Where jax.profiler writes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def epoch_done(self, record: EpochRecord) -> None:
        """Start after the first epoch and stop after the second."""
        if record.epoch == 1:
            jax.profiler.start_trace(str(self.folder))
        elif record.epoch == 2:
            jax.profiler.stop_trace()  # type: ignore[no-untyped-call]


def time_by_lane(folder: Path) -> dict[str, dict[str, float]]:
    """Return the shares of time by kind of work, for each stream of the device or, without one, for busy threads.

    Args:
        folder: What `EpochTrace` wrote.

    Returns:
        By the lane's name, shares of the time from the first to the last event: ``busy``, and the longest kinds of
        work (kernels or operations, their numbers left out).
    """
    newest = max(folder.rglob("*.trace.json.gz"), key=lambda path: path.stat().st_mtime)
    with gzip.open(newest, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    names = _lane_names(events)
    work = [event for event in events if event.get("ph") == "X" and event.get("dur", 0) > 0]
    streams = {lane for lane, name in names.items() if "device:" in name.lower() and "stream" in name.lower()}
    chosen = streams or _busiest(work)
    began = min(event["ts"] for event in work)
    span = max(event["ts"] + event["dur"] for event in work) - began
    return {
        names.get(lane, str(lane)): _shares([event for event in work if _lane(event) == lane], span)
        for lane in sorted(chosen)
    }


def _lane_names(events: list[dict[str, Any]]) -> dict[tuple[int, int], str]:
    processes = {event["pid"]: event["args"]["name"] for event in events if event.get("name") == "process_name"}
    threads = [event for event in events if event.get("name") == "thread_name"]
    return {_lane(event): f"{processes.get(event['pid'], '')} {event['args']['name']}" for event in threads}


def _lane(event: dict[str, Any]) -> tuple[int, int]:
    return event["pid"], event.get("tid", 0)


def _busiest(work: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Return the two lanes that did most, for a machine without streams."""
    lanes = {_lane(event) for event in work}
    return set(sorted(lanes, key=lambda lane: -_busy([event for event in work if _lane(event) == lane]))[:2])


def _busy(work: list[dict[str, Any]]) -> float:
    """Return the time in which anything of this ran: events of a thread lie within each other."""
    total, until = 0.0, float("-inf")
    for event in sorted(work, key=lambda one: one["ts"]):
        end = event["ts"] + event["dur"]
        total += max(0.0, end - max(event["ts"], until))
        until = max(until, end)
    return total


def _shares(work: list[dict[str, Any]], span: float) -> dict[str, float]:
    kinds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in work:
        kinds[re.sub(r"[._]?\d+", "", event["name"])[:60]].append(event)
    longest = sorted(((_busy(events) / span, kind) for kind, events in kinds.items()), reverse=True)[:SHOWN]
    return {"busy": _busy(work) / span, **{kind: share for share, kind in longest}}

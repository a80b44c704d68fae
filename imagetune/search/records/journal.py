"""Journal of a search: a line for every trial that was proposed and for every one that ended, as it happened.

A search is resumed by replaying the journal to a fresh oracle, which brings it to where the last session stopped;
KerasTuner's own files are never read back. A last line that a crash has cut short is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from imagetune.core.documents import SURPRISES
from imagetune.core.files import (
    MAX_JSON_BYTES,
    append_json_line,
    parse_json_object,
    read_bounded_bytes,
    split_json_lines,
)
from imagetune.errors import CheckpointError
from imagetune.search.records.trial import Trial, TrialResult


@dataclass(frozen=True)
class Proposed:
    """The event that a trial was proposed."""

    trial: Trial


@dataclass(frozen=True)
class Ended:
    """The event that a trial ended, with its result."""

    result: TrialResult


Event = Proposed | Ended
# Dataclasses believe what they are given; these hold the values of a line to their types.
_TRIAL, _RESULT = TypeAdapter(Trial), TypeAdapter(TrialResult)
_NAME = re.compile(r"\w[\w-]{0,39}")


@dataclass(frozen=True)
class Journal:
    """The journal's file, which is only ever appended to.

    Attributes:
        path: Path of ``journal.jsonl``.
    """

    path: Path

    def add(self, event: Event) -> None:
        """Append an event to the file, and flush it to the disk."""
        if isinstance(event, Proposed):
            append_json_line(self.path, {"event": "proposed", **_trial_line(event.trial)})
        else:
            result = event.result
            line = {key: value for key, value in asdict(result).items() if key != "trial"}
            # Without the trial's settings, which the line of its proposal has.
            append_json_line(self.path, {"event": "ended", "trial_id": result.trial.trial_id, **line})

    def read(self, *, repair: bool = True) -> list[Event]:
        """Return the events of the journal, in order.

        Args:
            repair: Cut off an incomplete last line; readers of a search that may still run leave it as it is.

        Raises:
            CheckpointError: A line that isn't the last can't be read.
        """
        if not self.path.exists():
            return []
        trials: dict[str, Trial] = {}
        events: list[Event] = []
        read = 1
        try:
            for read, line in split_json_lines(self._read_complete(repair=repair)):  # noqa: B007 - named in the error
                event = _event(parse_json_object(line), trials)
                if isinstance(event, Proposed):
                    trials[event.trial.trial_id] = event.trial
                events.append(event)
        # Not left out like a torn last line: a search without one of its results would propose other trials.
        except (OSError, *SURPRISES) as error:
            hint = "repair the line, or search again in another folder with --run-dir"
            what = f"can't be read: {_describe(error)}"
            raise CheckpointError(what, where=f"{self.path}:{read}", hint=hint) from error
        return events

    def _read_complete(self, *, repair: bool) -> bytes:
        """Return the text up to the last line break."""
        data = read_bounded_bytes(self.path, max_bytes=MAX_JSON_BYTES)
        complete = data[: data.rfind(b"\n") + 1]
        if repair and len(complete) < len(data):
            # Otherwise the next event would be appended to the torn line, and both would be lost.
            self.path.write_bytes(complete)
        return complete


def list_results(events: Sequence[Event]) -> list[TrialResult]:
    """Return the results of the ended trials, in the order in which they ended."""
    return [event.result for event in events if isinstance(event, Ended)]


def find_unfinished(events: Sequence[Event]) -> Iterator[Trial]:
    """Yield the trials that were proposed and haven't ended, in the order of their proposals."""
    ended = {result.trial.trial_id for result in list_results(events)}
    for event in events:
        if isinstance(event, Proposed) and event.trial.trial_id not in ended:
            yield event.trial


def _trial_line(trial: Trial) -> dict[str, Any]:
    line = {key: value for key, value in asdict(trial).items() if key != "values" and value is not None}
    # A list of pairs, since a path has stages' numbers in it, which a JSON key can't hold.
    return {**line, "values": [[list(path), value] for path, value in trial.values.items()]}


def _event(line: dict[str, Any], trials: dict[str, Trial]) -> Event:
    kind = line.pop("event")
    if kind == "proposed":
        values = {tuple(path): value for path, value in line.pop("values")}
        trial = _TRIAL.validate_python({**line, "values": values})
        # Its folder has this name.
        if not all(_NAME.fullmatch(name) for name in (trial.trial_id, trial.continues, trial.repeats) if name):
            raise ValueError(f"{trial.trial_id!r} is no name of a trial")
        return Proposed(trial)
    if kind != "ended":
        raise ValueError(f"{kind!r} is no event")
    result = _RESULT.validate_python({**line, "trial": trials[line.pop("trial_id")]})
    if not all(map(math.isfinite, (result.objective or 0.0, result.began, result.seconds))):
        raise ValueError("a number that is not finite")
    return Ended(result)


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"field {'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error) if type(error) in (OSError, ValueError) else repr(error)

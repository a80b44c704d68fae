"""Drift: whether the predictions of a server still look like those for the run's validation images.

`imagetune.serving.drift.reference` says what is watched, `imagetune.serving.drift.share_changes` is the test behind it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import exp, log
from typing import Any

import numpy as np

from imagetune.core.text import format_count
from imagetune.serving.drift.reference import DriftReference, Kind
from imagetune.serving.drift.share_changes import Evidence, ShareChanges

ALPHA = 0.01
"""Chance that a server ever raises an alarm although nothing has changed; at most, for its whole life."""
# Predictions between two looks. The test is valid at any time, so looking more often costs only time.
_LOOK = 10
# An e-value of 1e300 and one beyond what a float holds say the same.
_MAX_LOG = 690.0


@dataclass(frozen=True)
class DriftAlarm:
    """The finding that a share has changed.

    Attributes:
        raised_at: Number of predictions after which it was made.
        time: When, in seconds since 1970.
        began_at: Number of predictions after which the change most likely began.
        share: The share from then on until the alarm, in [0, 1].
    """

    raised_at: int
    time: float
    began_at: int
    share: float


@dataclass(frozen=True)
class ShareState:
    """The state of one watched share.

    Attributes:
        kind: Images ``flagged`` as out-of-distribution or with a ``high_score``, a ``class``, a ``range``.
        name: The class, or the range; for the others what is counted.
        count: Predictions in the rolling window that count.
        share: Their share; None where the window is empty.
        expected: The share that the validation images lead to expect.
        e_value: The evidence that the share has changed; from 1 / `ALPHA` on there is an alarm.
        alarm: The alarm, which stays once it was raised; None without.
    """

    kind: Kind
    name: str
    count: int
    share: float | None
    expected: float
    e_value: float
    alarm: DriftAlarm | None


@dataclass(frozen=True)
class DriftState:
    """The state of the watch.

    Attributes:
        images: Predictions since the start of the server.
        window: Predictions in the rolling window: the latest ones, at most 1,000.
        shares: Every watched share.
    """

    images: int
    window: int
    shares: tuple[ShareState, ...]

    @property
    def alarms(self) -> tuple[tuple[ShareState, DriftAlarm], ...]:
        """The shares that have an alarm, each with it, in the order in which they were raised."""
        found = [(share, share.alarm) for share in self.shares if share.alarm is not None]
        return tuple(sorted(found, key=lambda pair: pair[1].raised_at))


class DriftMonitor:
    """Watches over the predictions of a server. Any thread may call it; its memory doesn't grow with their number.

    Args:
        reference: What is expected.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, reference: DriftReference, clock: Callable[[], float] = time.time) -> None:
        self.reference = reference
        self._clock = clock
        self._changes = ShareChanges([share.watched for share in reference.shares])
        self._alarms: dict[int, DriftAlarm] = {}
        self._lock = threading.Lock()

    def observe(self, predictions: Iterable[Mapping[str, Any]]) -> None:
        """Count predictions, as `/v1/predict` replies them; those of images that can't be read are passed over."""
        for prediction in predictions:
            if not prediction["error"]:
                self.observe_hits(self.reference.find_hits(prediction))

    def observe_hits(self, hits: Sequence[int]) -> None:
        """Count a prediction, given the places in ``reference.shares`` of those that it counts for."""
        with self._lock:
            self._changes.add(hits)
            if self._changes.images % _LOOK == 0:
                self._look(self._changes.weigh())

    @property
    def state(self) -> DriftState:
        """The state of the watch now."""
        with self._lock:
            evidence = self._changes.weigh()
            self._look(evidence)
            window, counts = self._changes.count_window()
            found = zip(self.reference.shares, counts.tolist(), evidence.log_e_values.tolist(), strict=True)
            shares = tuple(
                ShareState(
                    kind=share.kind,
                    name=share.name,
                    count=int(count),
                    share=count / window if window else None,
                    expected=share.watched.expected,
                    e_value=exp(min(value, _MAX_LOG)),
                    alarm=self._alarms.get(place),
                )
                for place, (share, count, value) in enumerate(found)
            )
            return DriftState(self._changes.images, window, shares)

    def describe(self) -> dict[str, Any]:
        """Return the state as JSON values, with the e-value ``alarm_at``; ``alarms`` is a sentence for each."""
        state = self.state
        alarms = [_describe_alarm(share, alarm, state) for share, alarm in state.alarms]
        return {**asdict(state), "alarm_at": round(1 / ALPHA), "alarms": alarms}

    def _look(self, evidence: Evidence) -> None:
        """Raise the alarms that are due."""
        for place in np.flatnonzero(evidence.log_e_values >= log(1 / ALPHA)).tolist():
            if place not in self._alarms:
                began, share = int(evidence.began[place]), float(evidence.since[place])
                self._alarms[place] = DriftAlarm(self._changes.images, self._clock(), began, share)


def _describe_alarm(share: ShareState, alarm: DriftAlarm, state: DriftState) -> str:
    """Return a sentence for people."""
    what = {
        "flagged": "were flagged as unlike the training images",
        "high_score": "were less like the training images than half of the validation images are",
        "class": f"were predicted as {share.name}",
        "range": f"had a predicted {share.name}",
    }[share.kind]
    seen = format_count(alarm.raised_at - alarm.began_at, "image")
    seen = f"{seen} after the first {alarm.began_at:,}" if alarm.began_at else f"first {seen}"
    return (
        f"Of the {seen}, {alarm.share:.0%} {what}, where validation lets expect {share.expected:.0%}; "
        f"of the latest {state.window:,} it is {share.share or 0:.0%}."
    )

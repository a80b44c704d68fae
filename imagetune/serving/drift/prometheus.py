"""The watch over drift, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from math import log10

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from imagetune.serving.drift.monitor import ALPHA, DriftMonitor

_ALARM = f"1 where the share has changed: its e-value has reached {1 / ALPHA:g}, and the alarm stays."


class DriftCollector(Collector):
    """Reads a monitor whenever the metrics are asked for.

    Args:
        monitor: The monitor.
    """

    def __init__(self, monitor: DriftMonitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each quantity with a value for each watched share."""
        state, names = self._monitor.state, ["kind", "share"]
        shown = GaugeMetricFamily("imagetune_drift_share", "Share among the latest predictions.", labels=names)
        expected = GaugeMetricFamily("imagetune_drift_expected_share", "The share that is expected.", labels=names)
        evidence = GaugeMetricFamily("imagetune_drift_log10_e_value", "Evidence that it has changed.", labels=names)
        alarm = GaugeMetricFamily("imagetune_drift_alarm", _ALARM, labels=names)
        for share in state.shares:
            key = [share.kind, share.name]
            if share.share is not None:
                shown.add_metric(key, share.share)
            expected.add_metric(key, share.expected)
            evidence.add_metric(key, log10(max(share.e_value, 1e-300)))
            alarm.add_metric(key, float(share.alarm is not None))
        yield from (shown, expected, evidence, alarm)
        yield GaugeMetricFamily("imagetune_drift_images", "Predictions in the window of the shares.", state.window)

"""False alarms and delays by simulation. What shifts do to the shares was measured on real images: docs/drift.md."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.order_statistics import count_scores_above
from imagetune.serving.drift.monitor import DriftMonitor
from imagetune.serving.drift.reference import DriftReference, build_drift_reference
from imagetune.serving.drift.share_changes import BLOCK, ShareChanges, WatchedShare

SHARE = 0.05
CLASSES = tuple("abcdefgh")
# Scores are ranks, in [0, 1], of the source that the validation images come from; those of shifted images are drawn to
# this power. 0.29 flags 0.16 and puts 0.91 into the upper half, as blurring does with the quickstart's drawings (0.15,
# 0.91); 0.053 flags 0.62, as of the same drawings copied in grey with noise, as another vendor's scanner does.
BLUR, STYLE = 0.29, 0.053


def reference_of(scores: np.ndarray, labels: np.ndarray) -> DriftReference:
    """Return the reference of a run, from the scores and predicted classes of its validation images."""
    images, ordered, threshold = len(labels), np.sort(scores), choose_threshold(scores)
    edges = np.linspace(ordered[0], ordered[-1], 41)
    found = {
        "threshold": float(threshold),
        "share": SHARE,
        "chosen_on": {"splits": ["val"], "images": images},
        "histogram": {"edges": edges.tolist(), "counts": {"val": np.histogram(scores, edges)[0].tolist()}},
    }
    reference = build_drift_reference(predictions_of(labels), found)
    assert reference is not None
    return reference


def choose_threshold(scores: np.ndarray) -> float:
    return float(np.sort(scores)[len(scores) - 1 - count_scores_above(len(scores), SHARE)])


def predictions_of(labels: Sequence[int] | np.ndarray, classes: tuple[str, ...] = CLASSES) -> Predictions:
    outputs = np.eye(len(classes))[np.asarray(labels)]
    return Predictions(tuple(map(str, range(len(outputs)))), np.asarray(labels), outputs, classes)


def reply(label: str, score: float = 0.0, *, flagged: bool = False, **more: Any) -> dict[str, Any]:
    scores = {"out_of_distribution": flagged, "out_of_distribution_score": score}
    return {"label": label, **scores, "error": None, **more}


class Source:
    """A source of images: validation images, then a stream of predictions."""

    def __init__(self, seed: int, images: int) -> None:
        self.random = np.random.default_rng([seed, images])
        self.mix = self.random.dirichlet(np.full(len(CLASSES), 2.0))
        scores = self.random.random(images)
        self.reference = reference_of(scores, self.random.choice(len(CLASSES), images, p=self.mix))
        self.threshold = choose_threshold(scores)
        self.monitor = DriftMonitor(self.reference)

    def send(self, count: int, *, power: float = 1.0) -> None:
        scores = self.random.random(count) ** power
        for score, label in zip(scores.tolist(), self.random.choice(len(CLASSES), count, p=self.mix), strict=True):
            self.monitor.observe([reply(CLASSES[label], score, flagged=score > self.threshold)])

    def delay(self, *, power: float, clean: int) -> int:
        """Return how many shifted images it takes until an alarm, in steps of ten; 1,000 where there is none."""
        self.send(clean)
        assert not self.monitor.state.alarms
        for seen in range(10, 1000, 10):
            self.send(10, power=power)
            if self.monitor.state.alarms:
                return seen
        return 1000


def count_false_alarms(streams: int, *, images: int, length: int) -> int:
    found = 0
    for seed in range(streams):
        source = Source(seed, images)
        source.send(length)
        found += bool(source.monitor.state.alarms)
    return found


@pytest.mark.parametrize("images", [60, 200])
def test_clean_streams_raise_no_alarm(images: int) -> None:
    assert count_false_alarms(5, images=images, length=1500) == 0


@pytest.mark.slow
@pytest.mark.parametrize("images", [60, 200, 1000])
def test_at_most_one_of_a_hundred_clean_streams_of_ten_thousand_raises_an_alarm(images: int) -> None:
    assert count_false_alarms(200, images=images, length=10_000) <= 2


@pytest.mark.parametrize("power", [BLUR, STYLE])
@pytest.mark.parametrize("clean", [0, 1000])
def test_a_shift_is_found_within_two_hundred_images(power: float, clean: int) -> None:
    assert max(Source(seed, 200).delay(power=power, clean=clean) for seed in range(2)) <= 200


@pytest.mark.slow
@pytest.mark.parametrize("images", [60, 200])
@pytest.mark.parametrize("power", [BLUR, STYLE])
@pytest.mark.parametrize("clean", [0, 2000])
def test_shifts_are_found_within_two_hundred_images(images: int, power: float, clean: int) -> None:
    delays = [Source(seed, images).delay(power=power, clean=clean) for seed in range(50)]
    print(f"reference {images}, clean {clean}: median {np.median(delays):.0f}, largest {max(delays)}")
    assert np.mean(np.array(delays) <= 200) >= 0.98


def test_another_mix_of_classes_is_an_alarm_that_names_the_class() -> None:
    source = Source(3, 200)
    source.send(500)
    source.monitor.observe([reply("c", 0.3)] * 100)
    (share, alarm), *_ = source.monitor.state.alarms
    assert (share.kind, share.name, alarm.began_at) == ("class", "c", 500)
    assert alarm.share == 1.0
    assert share.expected < 0.4
    (sentence, *_) = source.monitor.describe()["alarms"]
    assert "images after the first 500, 100% were predicted as c, where validation lets expect" in sentence


def test_an_alarm_stays_with_its_number_and_its_time() -> None:
    source = Source(1, 200)
    source.monitor = DriftMonitor(source.reference, clock=lambda: 42.0)
    source.monitor.observe([reply("a", 1.0, flagged=True)] * 100)
    first = source.monitor.state.alarms[0][1]
    assert first.time == 42.0
    assert first.raised_at <= 30
    source.send(3000)
    assert source.monitor.state.alarms[0][1] == first
    assert source.monitor.state.shares[0].count < 100


def test_fewer_flagged_images_than_expected_are_no_alarm() -> None:
    random = np.random.default_rng(5)
    monitor = DriftMonitor(reference_of(random.random(1000), random.integers(0, 8, 1000)))
    for label in random.integers(0, 8, 3000):
        monitor.observe([reply(CLASSES[label], 0.2)])
    assert not monitor.state.alarms


def test_images_that_could_not_be_read_are_passed_over() -> None:
    source = Source(2, 60)
    source.monitor.observe([{"label": None, "error": {"code": "unreadable_image", "message": "It is text."}}] * 50)
    assert source.monitor.state.images == 0
    assert source.monitor.state.shares[0].share is None


def test_the_window_holds_the_latest_thousand_and_memory_stays_flat() -> None:
    changes = ShareChanges([WatchedShare(5, 55)])
    for number in range(100_000):
        changes.add([0] if number >= 99_000 else [])
    window, counts = changes.count_window()
    assert 950 <= window <= 1000
    assert counts[0] == window
    assert len(changes._starts) < 200 < 100_000 / BLOCK


def test_numbers_are_watched_by_fifths_of_the_predictions_for_validation() -> None:
    values = np.random.default_rng(0).normal(50, 10, 100)
    predictions = Predictions(
        tuple(map(str, range(100))),
        np.full(100, -1),
        values[:, None],
        ("age",),
        LabelRule("regression"),
        values[:, None],
    )
    reference = build_drift_reference(predictions)
    assert reference is not None
    assert [share.watched.expected for share in reference.shares] == pytest.approx([20 / 101] * 4 + [21 / 101])
    assert reference.shares[0].name.startswith("age up to 4")
    counts = np.zeros(5)
    for value in values:
        counts[list(reference.find_hits(reply(f"{value:.9g}", value=float(value))))] += 1
    assert counts.tolist() == [20] * 5


def test_each_of_several_labels_counts() -> None:
    rule = LabelRule("multi_label", "|")
    outputs = np.array([[0.9, 0.8, 0.1], [0.1, 0.9, 0.2]] * 10)
    predictions = Predictions(
        tuple(map(str, range(20))), np.full(20, -1), outputs, ("x", "y", "z"), rule, np.zeros((20, 3))
    )
    reference = build_drift_reference(predictions)
    assert reference is not None
    assert [share.watched.hits for share in reference.shares] == [10, 20, 0]
    assert reference.find_hits(reply("x|z")) == (0, 2)
    assert reference.find_hits(reply("")) == ()


def test_a_run_without_validation_images_and_scores_has_nothing_to_watch() -> None:
    assert build_drift_reference(None) is None
    assert build_drift_reference(None, {"threshold": None, "images": 20}) is None


def test_the_process_that_answers_http_needs_no_keras() -> None:
    code = "import sys; import imagetune.commands.serve; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

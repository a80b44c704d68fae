from __future__ import annotations

import pytest

from imagetune.data.audit.class_sizes import check_class_sizes
from imagetune.data.audit.image_statistics import ImageStatistics
from imagetune.data.sources.labels import LabelRule
from imagetune.data.sources.records import Record


def found(counts: dict[str, int], *, bad: int = 0, rule: LabelRule | None = None):
    labels = [label for label, count in counts.items() for _ in range(count)]
    records = [Record(f"/set/{at}.png", label) for at, label in enumerate(labels)]
    statistics = [
        ImageStatistics(one.path, "", 1, 9, 9, None, "bad" if at < bad else None) for at, one in enumerate(records)
    ]
    return {one.code: one for one in check_class_sizes(records, statistics, rule or LabelRule())}


def test_classes_of_ten_and_more_are_fine():
    assert found({"cat": 10, "dog": 99}) == {}


def test_a_tiny_class_is_named_with_its_images():
    finding = found({"cat": 9, "dog": 40, "owl": 3})["tiny-class"]
    assert finding.title == "2 classes with fewer than 10 images: owl (3), cat (9)"
    assert len(finding.paths) == 12
    assert finding.metrics == {"owl": 3, "cat": 9}


def test_images_that_cannot_be_used_do_not_count():
    finding = found({"cat": 12, "dog": 40}, bad=12)["tiny-class"]
    assert finding.title.endswith("cat (0)")
    assert finding.paths == ()


@pytest.mark.parametrize(("most", "reported"), [(299, False), (300, True)])
def test_from_ten_times_on_the_ratio_is_reported(most, reported):
    assert ("class-imbalance" in found({"cat": most, "dog": 30})) is reported
    if reported:
        assert "10 times" in found({"cat": most, "dog": 30})["class-imbalance"].title


def test_a_label_of_several_counts_for_each():
    rule = LabelRule("multi_label")
    assert found({"cat;dog": 8, "dog": 30, "cat": 4}, rule=rule) == {}
    tiny = found({"cat;dog": 8, "dog": 30}, rule=rule)["tiny-class"]
    assert tiny.title.endswith("cat (8)")
    assert len(tiny.paths) == 8


def test_numbers_have_no_classes():
    assert found({"3": 1, "4": 50}, rule=LabelRule("regression")) == {}

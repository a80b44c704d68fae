from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from imagetune.data.audit.image_statistics import Appearance, ImageStatistics
from imagetune.data.audit.shift import compare_shares, compare_splits, find_split_shift
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.labels import LabelRule
from imagetune.data.sources.records import Record


def source(
    splits: list[str | None], *, seed: int = 0, labels: list[str] | None = None, rule: LabelRule | None = None
) -> tuple[Catalog, list[ImageStatistics]]:
    rng = np.random.default_rng(seed)
    records, statistics = [], []
    for at, split in enumerate(splits):
        path = f"/set/{at}.jpg"
        width, height = rng.integers(200, 800, 2).tolist()
        red, green, blue, bright, contrast = rng.uniform(0.2, 0.8, 5)
        appearance = Appearance(
            red, green, blue, bright, contrast, 0.0, 1.0, 6.0, rng.uniform(0.5, 1.5), width / height
        )
        records.append(Record(path, labels[at] if labels else ["a", "b"][int(rng.integers(2))], split))
        statistics.append(
            ImageStatistics(
                path, str(at), int(rng.integers(10**5)), width, height, at, None, (), "JPEG", "", appearance
            )
        )
    return Catalog(Path("/set"), tuple(records), (), rule or LabelRule()), statistics


SPLITS = ["train"] * 120 + ["val"] * 40 + ["test"] * 60


def found(catalog: Catalog, statistics: list[ImageStatistics]) -> dict[str, str]:
    return {one.title.split()[0]: one.title for one in find_split_shift(catalog, statistics, range(len(statistics)))}


def test_splits_drawn_at_random_are_not_reported():
    assert [seed for seed in range(60) if found(*source(SPLITS, seed=seed))] == []


def test_a_darker_test_split_is_reported_with_how_well_it_can_be_distinguished():
    catalog, statistics = source(SPLITS)
    for at in range(160, 220):
        appearance = statistics[at].appearance
        assert appearance is not None
        statistics[at] = replace(statistics[at], appearance=replace(appearance, brightness=appearance.brightness / 3))
    (finding,) = find_split_shift(catalog, statistics, range(len(statistics)))
    assert finding.code == "split-shift"
    assert finding.title == "test differs from train in brightness"
    assert finding.metrics["brightness"] > 0.7
    assert finding.metrics["classifier_accuracy"] > 0.8


@pytest.mark.parametrize("what", ["file type", "camera", "labels"])
def test_other_shares_are_reported(what):
    catalog, statistics = source(SPLITS)
    records = list(catalog.records)
    for at in range(120, 160):
        if what == "file type":
            statistics[at] = replace(statistics[at], kind="PNG")
        elif what == "camera":
            statistics[at] = replace(statistics[at], camera="Other 1")
        else:
            records[at] = replace(records[at], label="a")
    assert found(replace(catalog, records=tuple(records)), statistics) == {"val": f"val differs from train in {what}"}


def test_the_numbers_of_regression_are_compared_as_numbers():
    rng = np.random.default_rng(3)
    values = [*rng.normal(size=160), *rng.normal(3, 1, size=60)]
    labels = [repr(float(value)) for value in values]
    catalog, statistics = source(SPLITS, labels=labels, rule=LabelRule("regression"))
    assert found(catalog, statistics) == {"test": "test differs from train in labels"}
    by_name = {one.what: one for one in compare_splits(catalog, statistics, range(120), range(160, 220))}
    reference = ks_2samp(values[:120], values[160:], method="asymp")
    assert by_name["labels"].distance == pytest.approx(reference.statistic)
    assert by_name["labels"].p == pytest.approx(reference.pvalue)


def test_small_and_missing_splits_are_left_alone():
    assert found(*source(["train"] * 100 + ["test"] * 10)) == {}
    assert found(*source([None] * 100)) == {}
    assert found(*source(["test"] * 100)) == {}


def test_copies_count_once():
    catalog, statistics = source(["train"] * 60 + ["test"] * 60)
    for at in range(60, 120):
        statistics[at] = replace(statistics[at], kind="PNG")
    assert "test" in found(catalog, statistics)
    duplicate_groups = [*range(60), *[60] * 60]
    assert list(find_split_shift(catalog, statistics, duplicate_groups)) == []


def test_total_variation_is_half_the_sum_of_differences():
    compared = compare_shares(["x"] * 30 + ["y"] * 10, ["x"] * 10 + ["y"] * 30)
    assert compared is not None
    assert compared[0] == pytest.approx(0.5)
    assert compared[1] < 0.001
    assert compare_shares(["x"] * 30, ["x"] * 20) is None
    rare = compare_shares([f"{number}" for number in range(30)], [f"other {number}" for number in range(30)])
    assert rare is None

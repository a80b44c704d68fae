from __future__ import annotations

from pathlib import Path

from imagetune.data.audit.audit import Audit, ImageStatistics
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.records import Record
from imagetune.data.splits.groups import add_duplicate_groups, describe_groups, group_records

ROOT = Path("/data")


def records(*groups: str | None) -> list[Record]:
    return [Record(f"/data/cat/{number}.png", "cat", None, group) for number, group in enumerate(groups)]


def test_near_duplicates_are_a_group_with_the_name_of_one() -> None:
    found = [one.group for one in group_records(records(None, None, None), [0, 1, 0], ROOT)]
    assert found == ["near-duplicates of cat/0.png", None, "near-duplicates of cat/0.png"]


def test_near_duplicates_of_a_group_belong_to_it_and_groups_that_they_connect_are_one() -> None:
    found = [
        one.group for one in group_records(records("film a", None, "film b", "film a", "film c"), [0, 0, 0, 3, 4], ROOT)
    ]
    assert found == ["film a+film b", "film a+film b", "film a+film b", "film a+film b", "film c"]


def test_an_image_that_can_not_be_used_is_in_no_near_duplicate_group() -> None:
    statistics = tuple(
        ImageStatistics(one.path, "", 1, 1, 1, None, None if place else "is empty")
        for place, one in enumerate(records(None, None))
    )
    catalog = add_duplicate_groups(Catalog(ROOT, tuple(records(None, None))), Audit(statistics, (), (0, 0)))
    assert [record.group for record in catalog.records] == [None, None]


def test_groups_are_described_by_the_images_that_share_one() -> None:
    alike = "near-duplicates of cat/0.png"
    assert describe_groups([None, "film a", None]) == ""
    assert describe_groups([alike, alike, None, "film a"]) == "2 of 4 images are in 1 near-duplicate group"
    assert describe_groups([alike, alike, "film a", "film a"]) == "4 of 4 images are in 2 groups"

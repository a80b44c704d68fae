"""Folds of a head's cross-validation: stratified, with what belongs together in one fold."""

from __future__ import annotations

import numpy as np

from imagetune.data.sources.records import Record
from imagetune.recipe.sections.data import DataConfig
from imagetune.training.head_solver.rows import deal_image_folds
from imagetune.training.setup.job import TrainingImages


def make_images(groups: list[str | None], labels: list[str], *, duplicates: dict[str, int] | None = None):
    """Return training images without files, by group and label."""
    records = [
        Record(path=f"{at}.png", label=label, group=group)
        for at, (group, label) in enumerate(zip(groups, labels, strict=True))
    ]
    return TrainingImages(records, (), ("a", "b"), DataConfig(source="unused"), duplicate_groups=duplicates or {})


def test_groups_and_near_duplicates_are_in_one_fold() -> None:
    groups = [f"patient {at // 4}" for at in range(40)] + [None] * 10
    images = make_images(groups, ["a", "b"] * 25, duplicates={"41.png": 7, "45.png": 7, "0.png": 9, "49.png": 9})
    folds = deal_image_folds(images, seed=1)
    assert all(len(set(folds[start : start + 4])) == 1 for start in range(0, 40, 4))
    assert folds[41] == folds[45]
    assert folds[0] == folds[49]
    assert set(folds) == {0, 1, 2, 3, 4}


def test_every_fold_has_its_share_of_each_class() -> None:
    folds = deal_image_folds(make_images([None] * 50, ["a"] * 40 + ["b"] * 10), seed=1)
    assert np.bincount(folds[:40]).tolist() == [8] * 5
    assert np.bincount(folds[40:]).tolist() == [2] * 5


def test_images_that_cannot_be_separated_have_no_folds() -> None:
    assert not deal_image_folds(make_images(["one"] * 6, ["a", "b"] * 3), seed=1).any()


def test_the_same_images_in_another_folder_are_dealt_alike() -> None:
    def deal(folder: str) -> list[int]:
        records = [Record(path=f"{folder}/{at}.png", label="ab"[at % 2]) for at in range(40)]
        hashes = {record.path: f"{at:064x}" for at, record in enumerate(records)}
        images = TrainingImages(records, (), ("a", "b"), DataConfig(source="unused"), hashes=hashes)
        return deal_image_folds(images, seed=1).tolist()

    assert deal("/home/ada/drawings") == deal("/data")

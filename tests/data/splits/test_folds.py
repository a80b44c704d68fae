from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetune.data.audit.audit import Audit, ImageStatistics
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.sources.records import Record
from imagetune.data.splits.assignment import Unit
from imagetune.data.splits.folds import assign_folds, build_cross_validation_folds, build_selection_folds
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits, split_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
ROOT = Path("/data")


def made(
    records: list[Record],
    config: DataConfig,
    *,
    folds: int = 5,
    seed: int = 0,
    duplicate_groups: dict[int, int] | None = None,
) -> tuple[Splits, tuple[Splits, ...]]:
    facts = tuple(ImageStatistics(r.path, f"sha of {r.path}", 1, 1, 1, None, None) for r in records)
    roots = tuple((duplicate_groups or {}).get(index, index) for index in range(len(records)))
    catalog, audit = Catalog(ROOT, tuple(records), rule=build_label_rule(config)), Audit(facts, (), roots)
    splits = split_catalog(catalog, audit, config, seed=seed)
    return splits, build_cross_validation_folds(catalog, audit, splits, folds=folds, seed=seed)


def records(counts: dict[str, int], *, groups: int | None = None, split: str | None = None) -> list[Record]:
    return [
        Record(f"/data/{label}/{number}.png", label, split, None if groups is None else f"{label}{number // groups}")
        for label, count in counts.items()
        for number in range(count)
    ]


def paths(found: tuple[Record, ...]) -> set[str]:
    return {record.path for record in found}


@pytest.fixture
def config(config_for: ConfigFor) -> DataConfig:
    return config_for(ROOT)


def test_each_image_is_left_out_once_and_no_test_image_is_in_any_fold(config: DataConfig) -> None:
    splits, folds = made(records({"a": 70, "b": 30}), config)
    left_out = [record.path for fold in folds for record in open_holdout(fold)]
    assert len(left_out) == len(set(left_out))
    assert set(left_out) == paths(splits.train) | paths(splits.val)
    sealed = paths(open_holdout(splits))
    for fold in folds:
        parts = [paths(fold.train), paths(fold.val), paths(open_holdout(fold))]
        assert not sealed & set.union(*parts)
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(left_out)
        assert {record.split for record in open_holdout(fold)} == {"test"}


def test_folds_have_the_classes_in_equal_shares_and_validation_its_share(config: DataConfig) -> None:
    splits, folds = made(records({"a": 400, "b": 100}), config)
    whole = Counter(record.label for record in (*splits.train, *splits.val))
    for fold in folds:
        counts = Counter(record.label for record in open_holdout(fold))
        assert all(abs(counts[label] - whole[label] / 5) <= 1 for label in whole)
        share = len(splits.val) / (len(splits.train) + len(splits.val))
        assert len(fold.val) / (len(fold.train) + len(fold.val)) == pytest.approx(share, abs=0.01)


def test_groups_and_near_duplicates_stay_together(config: DataConfig) -> None:
    listed = records({"a": 120, "b": 120}, groups=4)
    # Two images of different groups are near-copies: their groups become one.
    _, folds = made(listed, config, duplicate_groups={9: 2})
    for fold in folds:
        sides: dict[str | None, set[str]] = {}
        for side, found in (("train", fold.train), ("val", fold.val), ("test", open_holdout(fold))):
            for record in found:
                sides.setdefault(record.group, set()).add(side)
        assert all(len(found) == 1 for found in sides.values())
        assert sides.get("a0") == sides.get("a2")


def test_a_seed_gives_the_same_folds_and_another_one_others(config: DataConfig) -> None:
    listed = records({"a": 60, "b": 60}, split="train") + [
        Record(f"/data/t{n}.png", "ab"[n % 2], "test") for n in (1, 2)
    ]
    first, again, other = (
        [paths(open_holdout(fold)) for fold in made(listed, config, seed=seed)[1]] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_without_validation_no_fold_has_any(config_for: ConfigFor) -> None:
    _, folds = made(records({"a": 40, "b": 40}), config_for(ROOT, split={"val": 0.0}))
    assert not any(fold.val for fold in folds)


def test_a_class_in_one_group_cannot_be_cross_validated(config: DataConfig) -> None:
    listed = [
        *(Record(f"/data/{n}.png", "a", "train", None) for n in range(20)),
        *(Record(f"/data/b{n}.png", "b", "train", "one") for n in range(5)),
        Record("/data/v.png", "a", "val"),
        Record("/data/w.png", "a", "test"),
    ]
    with pytest.raises(DataError, match="the class 'b' can't be cross-validated"):
        made(listed, config)


def test_more_folds_than_groups_are_refused(config: DataConfig) -> None:
    listed = [Record(f"/data/{n}.png", "ab"[n % 2], "test" if n > 15 else "train", f"g{n % 4}") for n in range(20)]
    with pytest.raises(DataError, match=r"evaluate\.folds is 10, but only"):
        made(listed, config, folds=10)


def test_rare_labels_are_spread_first() -> None:
    units = [Unit((n,), {"common": 1}, n / 100) for n in range(20)]
    units += [Unit((20 + n,), {"common": 1, "rare": 1}, 0.5 + n / 100) for n in range(4)]
    folds = assign_folds(units, 4)
    assert Counter(folds[20:]) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert Counter(folds) == {0: 6, 1: 6, 2: 6, 3: 6}


def test_numbers_are_spread_by_their_size(config_for: ConfigFor) -> None:
    listed = [Record(f"/data/{n}.png", str(n)) for n in range(200)]
    _, folds = made(listed, config_for(ROOT, task="regression", split={"method": "stratified"}))
    means = [sum(float(r.label) for r in open_holdout(fold)) / fold.test_count for fold in folds]
    assert all(abs(mean - 99.5) < 12 for mean in means)


def chosen(
    images: list[Record],
    config: DataConfig,
    *,
    folds: int = 5,
    seed: int = 0,
    duplicate_groups: dict[int, int] | None = None,
) -> tuple[Splits, tuple[Splits, ...]]:
    facts = tuple(ImageStatistics(r.path, f"sha of {r.path}", 1, 1, 1, None, None) for r in images)
    roots = tuple((duplicate_groups or {}).get(index, index) for index in range(len(images)))
    catalog, audit = Catalog(ROOT, tuple(images), rule=build_label_rule(config)), Audit(facts, (), roots)
    splits = split_catalog(catalog, audit, config, seed=seed)
    return splits, build_selection_folds(catalog, audit, splits, folds=folds, seed=seed)


def test_trials_are_judged_by_every_image_but_those_of_the_test_once(config: DataConfig) -> None:
    splits, folds = chosen(records({"a": 70, "b": 30}), config)
    judged = [record.path for fold in folds for record in fold.val]
    assert len(judged) == len(set(judged))
    assert set(judged) == paths(splits.train) | paths(splits.val)
    for fold in folds:
        assert fold.test_count == 0
        assert paths(fold.train) | paths(fold.val) == set(judged)
        assert not paths(fold.train) & paths(fold.val)
        assert {record.split for record in fold.val} == {"val"}
        counts = Counter(record.label for record in fold.val)
        assert abs(counts["a"] - len(judged) * 0.7 / 5) <= 2


def test_groups_and_near_duplicates_stay_together_where_trials_are_judged(config: DataConfig) -> None:
    _, folds = chosen(records({"a": 60, "b": 60}, groups=3), config, folds=4)
    for fold in folds:
        assert not {record.group for record in fold.train} & {record.group for record in fold.val}
    images = records({"a": 60, "b": 60})
    _, folds = chosen(images, config, duplicate_groups={1: 0, 2: 0, 61: 60})
    group = [images[at].path for at in (0, 1, 2)]
    for fold in folds:
        assert len({path in paths(fold.val) for path in group}) == 1


def test_the_seed_decides_where_trials_are_judged(config: DataConfig) -> None:
    images = records({"a": 40, "b": 40})
    first, again = chosen(images, config)[1], chosen(images, config)[1]
    assert [fold.val for fold in first] == [fold.val for fold in again]


def test_too_few_images_for_search_folds_are_named(config: DataConfig) -> None:
    with pytest.raises(DataError, match=r"search\.folds is 50"):
        chosen(records({"a": 20, "b": 20}), config, folds=50)

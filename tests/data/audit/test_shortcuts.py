from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from imagetune.data.audit.image_statistics import Appearance, ImageStatistics
from imagetune.data.audit.shortcuts import (
    _score_classes,
    encode_one_hot,
    find_shortcuts,
    measure_shortcuts,
    score_class_prediction,
    score_value_prediction,
)
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.labels import LabelRule
from imagetune.data.sources.records import Record

ROOT = Path("/set")


def source(
    labels: list[str], *, seed: int = 0, rule: LabelRule | None = None, where: list[str] | None = None, **values: list
) -> tuple[Catalog, list[ImageStatistics]]:
    """Images of random size, shape and colour, but for what ``values`` gives of each."""
    rng = np.random.default_rng(seed)
    records, statistics = [], []
    for at, label in enumerate(labels):
        folder = label if where is None else where[at]
        path = str(ROOT / folder / f"{at}.jpg")
        red, green, blue = values["colour"][at] if "colour" in values else rng.uniform(0, 1, 3)
        width, height = values["size"][at] if "size" in values else rng.integers(200, 800, 2)
        appearance = Appearance(red, green, blue, 0.5, 0.2, 0.0, 1.0, 6.0, 1.0, width / height)
        kind = values["kind"][at] if "kind" in values else "JPEG"
        camera = values["camera"][at] if "camera" in values else ""
        records.append(Record(path, label))
        statistics.append(
            ImageStatistics(path, str(at), 1000, int(width), int(height), at, None, (), kind, camera, appearance),
        )
    return Catalog(ROOT, tuple(records), (), rule or LabelRule()), statistics


def reported(catalog: Catalog, statistics: list[ImageStatistics]) -> dict[str, str]:
    return {
        one.code: one.title for one in find_shortcuts(measure_shortcuts(catalog, statistics, range(len(statistics))))
    }


LABELS = ["cat", "dog", "owl"] * 30


@pytest.mark.slow
def test_nothing_is_reported_of_random_sets_however_small():
    for seed in range(60):
        labels = ["a", "b", "c"][: 2 + seed % 2] * (15 + seed)
        rng = np.random.default_rng(seed)
        catalog, statistics = source(
            labels,
            seed=seed,
            where=[f"site{number}" for number in rng.integers(3, size=len(labels))],
            kind=[["JPEG", "PNG"][number] for number in rng.integers(2, size=len(labels))],
            camera=[f"camera {number}" for number in rng.integers(4, size=len(labels))],
        )
        assert reported(catalog, statistics) == {}, seed


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("shortcut-file-type", {"kind": ["PNG" if label == "owl" else "JPEG" for label in LABELS]}),
        ("shortcut-camera", {"camera": [f"of {label}" for label in LABELS]}),
        ("shortcut-size", {"size": [(640, 480) if label == "cat" else (600, 450) for label in LABELS]}),
        ("shortcut-aspect", {"size": [(400, 300) if label == "dog" else (300, 400) for label in LABELS]}),
        ("shortcut-colour", {"colour": [(0.2 + 0.3 * "cdo".index(label[0]), 0.5, 0.5) for label in LABELS]}),
        ("shortcut-folder", {"where": [f"site {'cdo'.index(label[0]) // 2}" for label in LABELS]}),
    ],
)
def test_each_planted_shortcut_is_reported_alone(code, values):
    catalog, statistics = source(LABELS, **values)
    assert set(reported(catalog, statistics)) == {code}


def test_metrics_say_how_well_and_by_chance():
    catalog, statistics = source(LABELS, kind=["PNG" if label == "owl" else "JPEG" for label in LABELS])
    everything = measure_shortcuts(catalog, statistics, range(len(statistics)))
    assert set(everything) == {"shortcut-size", "shortcut-aspect", "shortcut-colour", "shortcut-file-type"}
    assert not everything["shortcut-size"].significant
    (finding,) = find_shortcuts(everything)
    assert finding.metrics["score"] == pytest.approx(2 / 3, abs=0.01)
    assert finding.metrics["chance"] == pytest.approx(1 / 3)
    assert finding.metrics["p"] == 0.001
    assert finding.metrics["best_class_gain"] == 1.0
    assert finding.metrics["images"] == 90


def test_one_class_of_many_is_reported_by_name():
    labels = [f"class {number}" for number in range(10)] * 15
    catalog, statistics = source(labels, kind=["PNG" if label == "class 7" else "JPEG" for label in labels])
    assert "distinguishes 'class 7' from the other classes" in reported(catalog, statistics)["shortcut-file-type"]


def test_a_perfect_shortcut_of_very_few_images_is_not_reported():
    labels = ["a", "b"] * 15
    catalog, statistics = source(labels, kind=["PNG" if label == "a" else "JPEG" for label in labels])
    assert reported(catalog, statistics) == {}


def test_copies_do_not_give_away_each_others_label():
    rng = np.random.default_rng(0)
    duplicate_groups = np.repeat(np.arange(0, 480, 10), 10)
    labels = np.repeat(rng.permutation(["a", "b"] * 24), 10).tolist()
    catalog, statistics = source(labels, size=[(200 + 7 * int(group), 300) for group in duplicate_groups])
    assert "shortcut-size" in reported(catalog, statistics)
    apart = measure_shortcuts(catalog, statistics, duplicate_groups.tolist())["shortcut-size"]
    assert apart.images == 48
    assert not apart.significant


def test_a_folder_for_each_group_is_no_shortcut_when_the_groups_are_given():
    labels = [label for label in "ab" * 25 for _ in range(8)]
    where = [f"patient{at // 8}" for at in range(400)]
    catalog, statistics = source(labels, where=where)
    assert "shortcut-folder" in reported(catalog, statistics)
    records = tuple(replace(record, group=name) for record, name in zip(catalog.records, where, strict=True))
    assert reported(replace(catalog, records=records), statistics) == {}


def test_class_folders_are_no_shortcut():
    assert reported(*source(LABELS)) == {}
    where = [f"train/{label.upper()}" for label in LABELS]
    assert reported(*source(LABELS, where=where)) == {}
    labels = [f"class {number}" for number in range(8)] * 12
    numbered = [f"n{hash(label) % 10**8:08}" for label in labels]
    assert reported(*source(labels, where=numbered)) == {}


def test_each_of_several_labels_is_looked_at():
    labels = ["cat;dog", "dog", "", "cat"] * 20
    kinds = ["PNG" if "dog" in label else "JPEG" for label in labels]
    catalog, statistics = source(labels, rule=LabelRule("multi_label"), kind=kinds)
    found = reported(catalog, statistics)
    assert set(found) == {"shortcut-file-type"}


def test_a_number_can_be_predicted_as_well():
    rng = np.random.default_rng(1)
    values = rng.normal(size=80)
    labels = [repr(float(value)) for value in values]
    sizes = [(int(400 + 100 * value), 300) for value in values]
    catalog, statistics = source(labels, rule=LabelRule("regression"), size=sizes, where=["x"] * 80)
    found = reported(catalog, statistics)
    assert set(found) == {"shortcut-size", "shortcut-aspect"}
    assert "of the label's variance" in found["shortcut-size"]
    assert reported(*source(labels, rule=LabelRule("regression"), where=["x"] * 80)) == {}


def test_class_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth, predictions = rng.integers(4, size=200), rng.integers(4, size=200)
    score, gains = _score_classes(truth, predictions, 4)
    assert score == pytest.approx(balanced_accuracy_score(truth, predictions))
    for name, gain in enumerate(gains):
        # Informedness of one against the rest: sensitivity + specificity - 1.
        assert gain == pytest.approx(2 * balanced_accuracy_score(truth == name, predictions == name) - 1)


@pytest.mark.slow
def test_the_p_value_is_uniform_or_larger_without_a_connection(monkeypatch):
    from imagetune.data.audit import shortcuts as module

    monkeypatch.setattr(module, "SKILL", -9.0)
    monkeypatch.setattr(module, "PERMUTATIONS", 99)
    rng = np.random.default_rng(2)
    found = [score_class_prediction(rng.normal(size=(60, 2)), ["a", "b"] * 30) for _ in range(200)]
    p = np.array([one.p for one in found if one is not None])
    assert len(p) == 200
    assert (p <= 0.05).mean() <= 0.09
    assert (p <= 0.2).mean() <= 0.27


def test_a_large_set_is_cut_to_size_with_its_small_classes():
    rng = np.random.default_rng(0)
    labels = ["common"] * 20_000 + ["rare"] * 12
    features = rng.normal(size=(len(labels), 1))
    features[-12:] += 50
    found = score_class_prediction(features, labels)
    assert found is not None
    assert found.images == 2012
    assert found.significant


def test_too_few_images_give_no_result():
    assert score_class_prediction(np.zeros((9, 1)), ["a"] * 9) is None
    assert score_class_prediction(np.zeros((60, 1)), ["a"] * 55 + ["b"] * 5) is None
    assert score_value_prediction(np.zeros((60, 1)), [3.0] * 60) is None


def test_words_become_columns_when_they_are_common():
    assert encode_one_hot(["x", "y", "x", "x", "z", "y", "y"]).tolist()[:2] == [[1.0, 0.0], [0.0, 1.0]]
    assert encode_one_hot([str(number) for number in range(20)]).shape == (20, 0)


def test_constant_features_need_no_model(monkeypatch):
    catalog, statistics = source(LABELS, size=[(100, 100)] * 90, colour=[(0.1, 0.2, 0.3)] * 90)
    monkeypatch.setattr("imagetune.data.audit.shortcuts._predict_held_out", None)
    assert reported(catalog, statistics) == {}

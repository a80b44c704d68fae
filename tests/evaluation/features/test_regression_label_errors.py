import csv

import numpy as np
import pytest
from scipy.stats import median_abs_deviation

from imagetune.core.files import write_json
from imagetune.core.run_files import LABEL_ERRORS
from imagetune.evaluation.features.feature_models import LabelledFeatures
from imagetune.evaluation.features.label_errors import analyse_label_errors
from imagetune.evaluation.features.regression_label_errors import (
    SUSPECT_DEVIATIONS,
    compute_robust_deviations,
    predict_by_neighbours_out_of_fold,
)


def numbered(n, *, seed, planted=0, growing=False, jump=8.0):
    """Return features, numbers that follow from them but for noise, and which ones were moved by ``jump`` sigmas."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(n, 4))
    clean = 50 + features @ np.array([10.0, 6.0, 0.0, 0.0])
    noise = random.normal(size=n) * (0.04 * np.abs(clean) if growing else 2.0)
    wrong = np.zeros(n, bool)
    wrong[random.choice(n, planted, replace=False)] = True
    return features, clean + noise + wrong * random.choice([-1, 1], n) * jump * 2.0, wrong


def run_of(examined, parts, **keywords):
    return examined(
        {name: [repr(float(value)) for value in part[1]] for name, part in parts.items()},
        {name: part[0] for name, part in parts.items()},
        {name: np.zeros((len(part[1]), 1)) for name, part in parts.items()},
        task="regression",
        classes=("age",),
        **keywords,
    )


def test_the_worked_example_of_modified_z_scores():
    """Ten numbers of Iglewicz and Hoaglin's kind: 0.6745 (8.2 - 2.45) / 0.15 = 25.9 for the last but one."""
    numbers = np.array([2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3])
    found = compute_robust_deviations(numbers, np.zeros(10))
    assert found[8] == pytest.approx(0.6745 * (8.2 - 2.45) / 0.15, rel=1e-3)
    expected = (numbers - np.median(numbers)) / median_abs_deviation(numbers, scale="normal")
    assert found == pytest.approx(expected, rel=1e-3)
    assert (np.abs(found) > SUSPECT_DEVIATIONS).tolist() == [False] * 8 + [True] * 2
    exact = np.array([0.0] * 8 + [1.0, 3.0])
    assert compute_robust_deviations(exact, np.zeros(10))[9] == pytest.approx(0.7979 * 3 / 0.4, rel=1e-3)
    assert compute_robust_deviations(np.ones(10), np.zeros(10)).tolist() == [0.0] * 10


def test_errors_that_grow_are_compared_with_those_of_like_predictions():
    random = np.random.default_rng(0)
    judged = np.sort(random.uniform(1, 100, 500))
    true = judged * (1 + 0.1 * random.normal(size=500))
    assert (np.abs(compute_robust_deviations(true, judged)) > SUSPECT_DEVIATIONS).mean() < 0.02
    true[0] = judged[0] + 20  # as large as errors of large numbers are
    assert np.abs(compute_robust_deviations(true, judged))[0] > SUSPECT_DEVIATIONS


@pytest.mark.parametrize("growing", [False, True])
def test_planted_numbers_are_found_and_little_else(examined, growing):
    parts = {
        "train": numbered(400, seed=1, planted=30, growing=growing),
        "val": numbered(100, seed=2, planted=8, growing=growing),
    }
    document = analyse_label_errors(run_of(examined, parts))
    wrong = {f"{name}-{place}.png" for name, part in parts.items() for place in np.flatnonzero(part[2])}
    for sure, min_recall, min_precision in ((False, 0.9, 0.85), (True, 0.35, 0.95)):
        found = {suspect["path"] for suspect in document["learned"]["suspects"] if suspect["confident"] or not sure}
        assert len(found & wrong) >= min_recall * len(wrong), (sure, len(found & wrong), len(wrong))
        assert len(found & wrong) >= min_precision * len(found), (sure, len(found & wrong), len(found))


def test_clean_numbers_are_hardly_suspected(examined):
    document = analyse_label_errors(run_of(examined, {"train": numbered(400, seed=3)}))
    # Of normal errors 0.05% lie beyond 3.5; robust estimates add a few.
    assert document["learned"]["found"] <= 4
    assert document["learned"]["confident"] == 0


def test_the_likely_number_is_near_the_true_one_and_the_furthest_off_come_first(examined):
    part = numbered(400, seed=4, planted=20)
    suspects = analyse_label_errors(run_of(examined, {"train": part}))["learned"]["suspects"]
    far = [abs(suspect["deviations"]) for suspect in suspects]
    assert far == sorted(far, reverse=True)
    features = part[0]
    for suspect in suspects:
        place = int(suspect["path"].removesuffix(".png").split("-")[1])
        clean = 50 + features[place] @ np.array([10.0, 6.0, 0.0, 0.0])
        assert abs(float(suspect["likely"]) - clean) < 6
        assert suspect["difference"] == pytest.approx(float(suspect["label"]) - float(suspect["likely"]), abs=0.02)


def test_the_test_is_flagged_apart_and_changes_nothing_of_the_rest(examined):
    parts = {"train": numbered(300, seed=5, planted=15), "test": numbered(80, seed=6, planted=8)}
    with_test = analyse_label_errors(run_of(examined, parts))
    without = analyse_label_errors(run_of(examined, {"train": parts["train"]}))
    assert with_test["learned"] == without["learned"]
    assert without["test"] is None
    wrong = {f"test-{place}.png" for place in np.flatnonzero(parts["test"][2])}
    assert len({suspect["path"] for suspect in with_test["test"]["suspects"]} & wrong) >= 7


def test_all_suspects_are_written_to_a_table(examined):
    run = run_of(examined, {"train": numbered(200, seed=7, planted=10), "test": numbered(60, seed=8, planted=5)})
    document = analyse_label_errors(run)
    with (run.folder / LABEL_ERRORS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["path", "split", "label", "likely_label", "difference", "deviations", "confident"]
    assert len(rows) == document["learned"]["found"] + document["test"]["found"]
    assert all(abs(float(row["deviations"])) > SUSPECT_DEVIATIONS for row in rows)


def test_copies_are_judged_without_each_other(examined):
    """An image that is there twice under the same wrong number would confirm itself."""
    features, numbers, wrong = numbered(150, seed=9, planted=10)
    twice = {"train": (np.concatenate([features, features]), np.tile(numbers, 2), np.tile(wrong, 2))}
    run = run_of(examined, twice)
    paths = [record.path for record in run.splits["train"].records]
    groups = [[paths[place], paths[place + 150]] for place in range(150)]
    write_json(run.folder / "audit.json", {"findings": [{"code": "identical-images", "groups": groups}]})
    folds = analyse_label_errors(run)["learned"]["suspects"]
    found = {int(suspect["path"].removesuffix(".png").split("-")[1]) % 150 for suspect in folds}
    assert len(found & set(np.flatnonzero(wrong))) >= 9


def test_neighbours_come_from_other_folds_and_their_median_is_predicted():
    angles = np.linspace(0, 1, 20)
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    numbers = np.arange(20.0)
    numbers[10] = 1000.0
    blank = np.full(20, -1)
    taught = LabelledFeatures(features, numbers[:, None], blank, np.arange(20), "regression")
    said = predict_by_neighbours_out_of_fold(taught, np.arange(20) % 2)
    # The nearest five of the other fold around image 9 are 6, 8, 10, 12 and 4 or 14.
    assert said[9] in (8.0, 12.0)
    assert said.max() < 1000


def test_too_few_images_have_no_suspects(examined):
    features, numbers, _ = numbered(1, seed=0)
    assert analyse_label_errors(run_of(examined, {"train": (features, numbers)})) is None

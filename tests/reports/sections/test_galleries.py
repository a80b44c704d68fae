import numpy as np

from imagetune.core.files import write_json
from imagetune.evaluation.predictions import Predictions
from imagetune.reports.run.report import render_report
from imagetune.reports.sections.galleries import (
    _disagrees,
    iterate_confused_pairs,
    rank_least_confident,
    view_galleries,
)
from imagetune.run_folder.reader import read_run


def test_the_most_confused_pair_comes_first_whichever_way():
    labels = np.array([0, 1, 1, 2, 2, 0])
    predicted = np.array([1, 0, 0, 1, 2, 0])
    probabilities = np.full((6, 3), 0.1)
    probabilities[np.arange(6), predicted] = [0.5, 0.6, 0.7, 0.8, 0.9, 0.8]
    predictions = Predictions(tuple("abcdef"), labels, probabilities, ("x", "y", "z"))
    pairs = [(one, other, members.tolist()) for one, other, members in iterate_confused_pairs(predictions)]
    assert pairs == [(0, 1, [2, 1, 0]), (1, 2, [3])]


def test_the_least_confident_prediction_has_the_smallest_margin_between_two_classes():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.39, 0.21], [0.9, 0.05, 0.05]])
    predictions = Predictions(tuple("abc"), np.zeros(3, np.int64), probabilities, ("x", "y", "z"))
    assert rank_least_confident(predictions).tolist() == [1, 0, 2]


def test_an_old_run_has_galleries_from_its_predictions_alone(run_folder):
    view = view_galleries(read_run(run_folder))
    assert view["confused"][0]["count"] >= view["confused"][-1]["count"] > 0
    assert len(view["least_confident"]) == 12
    assert all(one["image"].startswith("data:image/jpeg") for one in view["least_confident"])
    assert view["mistakes"] == view["similar"] == []
    first = view["least_confident"][0]["predictions"]
    assert first[0][1] >= first[1][1]


def test_all_sections_are_drawn_within_a_few_megabytes(run_folder, evaluation):
    write_json(run_folder / "evaluation.json", {**evaluation, **_parts(run_folder)})
    page = render_report(read_run(run_folder))
    for heading in (
        "Baselines",
        "Most confused class pairs",
        "Least confident predictions",
        "Nearest training images of the worst mistakes",
        "Similar images with different labels",
        "Suspected label errors",
        "Out-of-distribution detection",
    ):
        assert heading in page
    assert len(page) < 4_000_000
    assert "://" not in page.replace("http://www.w3.org", "")


def test_in_the_place_of_a_missing_image_the_page_says_so(run_folder, evaluation):
    parts = _parts(run_folder)
    parts["label_errors"]["learned"]["suspects"][0]["path"] = "birds/gone.png"
    write_json(run_folder / "evaluation.json", {**evaluation, **parts})
    assert "cannot be shown" in render_report(read_run(run_folder))


def _parts(folder):
    rows = read_run(folder).rows
    paths = [row["path"] for row in rows]
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    suspects = [
        {
            "path": path,
            "split": row["split"],
            "label": row["label"],
            "likely": "flags",
            "self_confidence": 0.01,
            "likely_confidence": 0.9,
            "confident": True,
        }
        for path, row in zip(paths[:30], rows, strict=False)
    ]
    learned = {"splits": ["train", "val"], "images": 300, "found": 30, "confident": 30, "suspects": suspects}
    learned |= {"marked": True, "expected_false_alarms": {"found": 20.4, "confident": 3.2}}
    edges = np.linspace(-9, 0, 41).tolist()
    names = ("accuracy", "balanced_accuracy", "f1")
    models = [
        {"name": name, "chosen": {"neighbours": 1}, "metrics": dict.fromkeys(names, metric), "difference": metric}
        for name in ("prior", "neighbours", "probe")
    ]
    near = [{"path": path, "label": "birds", "cosine": 0.9} for path in paths[:5]]
    splits = {name: {"images": 80, "flagged": metric} for name in ("train", "val", "test")}
    strange = [
        {"path": path, "label": "birds", "predicted": "boats", "score": -0.5, "flagged": True} for path in paths[:8]
    ]
    return {
        "baselines": {
            "tested": "test",
            "task": "single_label",
            "compared": "accuracy",
            "trained_on": 300,
            "training_images": 300,
            "validated": True,
            "fine_tuned": True,
            "models": models,
        },
        "label_errors": {
            "file": "label_errors.csv",
            "folds": 5,
            "strength": 0.01,
            "fine_tuned": True,
            "learned": learned,
            "test": {**learned, "splits": ["test"]},
        },
        "out_of_distribution": {
            "score": "energy",
            "recipe_score": "energy",
            "threshold": -2.0,
            "chosen_on": {"splits": ["val"], "images": 80},
            "false_alarms": {"value": 0.05, "low": 0.02, "high": 0.1},
            "threshold_interval": [-2.2, -1.9],
            "share": 0.05,
            "splits": splits,
            "tested": "test",
            "wrong": {"kept": metric, "flagged": metric},
            "histogram": {"edges": edges, "counts": {name: [2] * 40 for name in splits}},
            "highest_scores": strange,
        },
        "neighbours": {
            "tested": "test",
            "trained_on": 300,
            "mistakes": [{"path": path, "label": "birds", "predicted": "boats", "nearest": near} for path in paths[:9]],
            "compared": 400,
            "images": 400,
            "pairs": [
                {
                    "cosine": 0.99,
                    "images": [
                        {"path": paths[place], "label": "birds", "split": "train"},
                        {"path": paths[place + 1], "label": "boats", "split": "val"},
                    ],
                }
                for place in range(0, 16, 2)
            ],
        },
    }


def test_a_neighbour_disagrees_with_a_label_that_it_is_further_from_than_from_the_prediction():
    mistake = {"label": "100", "predicted": "40"}
    assert [_disagrees(near, mistake, "regression") for near in ("45", "69", "71", "200")] == [
        True,
        True,
        False,
        False,
    ]
    assert _disagrees("cat", {"label": "dog"}, "single_label")
    assert not _disagrees("dog", {"label": "dog"}, "single_label")

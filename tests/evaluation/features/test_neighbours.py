import numpy as np
import pytest

from imagetune.evaluation.features.neighbours import analyse_neighbours, find_mutual_neighbours


def test_mutual_pairs_are_each_others_nearest():
    features = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.1, 1.0], [1.0, 1.0]])
    found = [(one, other) for one, other, _ in find_mutual_neighbours(features)]
    assert found == [(0, 1), (2, 3)]
    assert not list(find_mutual_neighbours(features[:1]))


def test_copies_are_pairs_with_cosine_one():
    features = np.array([[3.0, 4.0], [3.0, 4.0], [-1.0, 0.0], [-1.0, 0.5]])
    pairs = list(find_mutual_neighbours(features))
    assert pairs[0][:2] == (0, 1)
    assert pairs[0][2] == pytest.approx(1)


@pytest.fixture
def run(examined):
    labels = {"train": ["ant", "bee", "ant"], "test": ["bee", "ant"]}
    features = {
        "train": np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]]),
        "test": np.array([[1.0, 0.02], [0.5, 0.5]]),
    }
    outputs = {"train": np.full((3, 2), 0.5), "test": np.array([[0.9, 0.1], [0.8, 0.2]])}
    return examined(labels, features, outputs, classes=("ant", "bee"))


def test_a_mistake_comes_with_the_training_images_nearest_to_it(run):
    document = analyse_neighbours(run)
    (mistake,) = document["mistakes"]
    assert (mistake["path"], mistake["label"], mistake["predicted"]) == ("test-0.png", "bee", "ant")
    assert [one["path"] for one in mistake["nearest"]] == ["train-0.png", "train-2.png", "train-1.png"]
    assert mistake["nearest"][0]["label"] == "ant"
    assert mistake["nearest"][0]["cosine"] == pytest.approx(1 / np.hypot(1, 0.02), abs=1e-5)


def test_alike_images_with_different_labels_are_listed(run):
    (pair,) = analyse_neighbours(run)["pairs"]
    assert [(one["path"], one["label"], one["split"]) for one in pair["images"]] == [
        ("train-0.png", "ant", "train"),
        ("test-0.png", "bee", "test"),
    ]


def test_without_training_features_there_are_none(examined):
    run = examined({"test": ["ant"]}, {"test": np.eye(1)}, {"test": np.array([[0.4, 0.6]])}, classes=("ant", "bee"))
    assert analyse_neighbours(run) is None


def test_alike_images_with_numbers_far_apart_are_listed_the_furthest_first(examined):
    angles = np.array([0.0, 0.01, 1.0, 1.01, 2.0, 2.01])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    run = examined(
        {"train": ["1", "30", "1", "2", "5", "90"], "test": ["1"]},
        {"train": features, "test": np.array([[-1.0, 0.0]])},
        {"train": np.zeros((6, 1)), "test": np.zeros((1, 1))},
        task="regression",
        classes=("age",),
    )
    pairs = analyse_neighbours(run)["pairs"]
    assert [[one["label"] for one in pair["images"]] for pair in pairs] == [["5", "90"]]

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, mean_absolute_error

from imagetune.core.files import write_json
from imagetune.evaluation.features.baselines import analyse_baselines, compute_errors, estimate_paired_difference
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.reports.sections.baselines import view_baselines
from imagetune.run_folder.reader import read_run

CLASSES = ("ant", "bee", "cat")


def images(n, *, seed, spread=1.0, d=6):
    """Return labels, features and what a poor model predicts: n images, the first class the most frequent."""
    random = np.random.default_rng(seed)
    means = np.random.default_rng(42).normal(size=(3, d)) * spread
    labels = random.choice(3, n, p=[0.5, 0.3, 0.2])
    labels[:3] = [0, 1, 2]
    features = means[labels] + random.normal(size=(n, d))
    outputs = random.dirichlet([1, 1, 1], n)
    return [CLASSES[label] for label in labels], features, outputs


def run_of(examined, parts, **keywords):
    labels, features, outputs = ({name: part[place] for name, part in parts.items()} for place in range(3))
    return examined(labels, features, outputs, classes=CLASSES, **keywords)


@pytest.fixture
def run(examined):
    parts = {"train": images(150, seed=1), "val": images(60, seed=2), "test": images(90, seed=3)}
    return run_of(examined, parts)


def by_name(document):
    return {model["name"]: model for model in document["models"]}


def test_the_largest_class_is_right_as_often_as_it_occurs(run):
    found = by_name(analyse_baselines(run))["prior"]
    labels = run.splits["test"].predictions.labels
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(accuracy_score(labels, np.zeros_like(labels)))
    assert found["metrics"]["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(labels, np.zeros_like(labels))
    )


def test_probe_and_neighbours_beat_a_model_that_guesses(run):
    document = analyse_baselines(run)
    models = by_name(document)
    for name in ("neighbours", "probe"):
        assert models[name]["metrics"]["accuracy"]["value"] > 0.6
        assert models[name]["difference"]["high"] < 0
    assert document["tested"] == "test"
    assert (document["trained_on"], document["training_images"]) == (150, 150)
    assert document["validated"]
    assert not document["fine_tuned"]


def test_choices_are_made_on_validation_and_never_on_the_test(examined, run):
    chosen = [model["chosen"] for model in analyse_baselines(run)["models"]]
    poisoned = {"train": images(150, seed=1), "val": images(60, seed=2), "test": images(90, seed=3)}
    labels, features, outputs = poisoned["test"]
    poisoned["test"] = (labels[::-1], features * 100, outputs)
    assert [model["chosen"] for model in analyse_baselines(run_of(examined, poisoned))["models"]] == chosen


def test_the_difference_is_paired_and_has_the_right_sign(run):
    predictions = run.splits["test"].predictions
    found = by_name(analyse_baselines(run))["prior"]
    own = accuracy_score(predictions.labels, predictions.predicted)
    assert found["difference"]["value"] == pytest.approx(own - found["metrics"]["accuracy"]["value"])
    assert found["difference"]["low"] < found["difference"]["value"] < found["difference"]["high"]


def test_a_model_does_not_differ_from_itself(run):
    predictions = run.splits["test"].predictions
    same = estimate_paired_difference(predictions, predictions, Bootstrap(samples=100))
    # No image differs, which is no evidence of how often others would.
    assert (same.value, same.low, same.high) == (0, None, None)


def test_the_paired_interval_is_narrower_than_that_of_two_independent_tests(made_up):
    one = made_up(300, 3, seed=1, sharpness=3)
    other = made_up(300, 3, seed=1, sharpness=2.9)
    gap = estimate_paired_difference(one, other, Bootstrap(samples=500))
    spread = np.sqrt(2 * compute_errors(one).var() / 300) * 1.96 * 2
    assert gap.high - gap.low < 0.6 * spread


def test_without_validation_customary_settings_are_used(examined):
    run = run_of(examined, {"train": images(80, seed=1), "test": images(40, seed=2)})
    document = analyse_baselines(run)
    assert not document["validated"]
    assert by_name(document)["neighbours"]["chosen"] == {"neighbours": 1}


def test_without_features_or_against_the_recipe_there_are_none(examined):
    parts = {"train": images(30, seed=1), "test": images(20, seed=2)}
    assert analyse_baselines(run_of(examined, parts, evaluate=", baselines: false")) is None
    assert analyse_baselines(run_of(examined, {"test": images(20, seed=2)})) is None


def test_numbers_have_a_median_neighbours_and_ridge_regression(examined):
    random = np.random.default_rng(0)
    parts = {}
    for name, n in (("train", 80), ("val", 40), ("test", 50)):
        features = random.normal(size=(n, 4))
        values = features @ np.array([3.0, -1, 0, 2]) + 10
        parts[name] = ([f"{value:.6f}" for value in values], features, np.full((n, 1), 10.0))
    labels, features, outputs = ({name: part[place] for name, part in parts.items()} for place in range(3))
    run = examined(labels, features, outputs, task="regression", classes=("weight",))
    document = analyse_baselines(run)
    models = by_name(document)
    true = run.splits["test"].predictions.targets[:, 0]
    median = np.median(run.splits["train"].predictions.targets)
    expected = mean_absolute_error(true, np.full(50, median))
    assert models["prior"]["metrics"]["mae"]["value"] == pytest.approx(expected)
    assert models["probe"]["metrics"]["r2"]["value"] > 0.9
    assert models["probe"]["difference"]["value"] > 0
    assert document["compared"] == "mae"


def test_several_labels_have_their_thresholds_from_validation(examined):
    random = np.random.default_rng(0)
    labels, features, outputs = {}, {}, {}
    for name, n in (("train", 120), ("val", 60), ("test", 60)):
        seen = random.normal(size=(n, 5))
        labels[name] = [";".join(x for x, on in (("ant", row[0] > 0), ("bee", row[1] > 1)) if on) for row in seen]
        features[name], outputs[name] = seen, random.uniform(size=(n, 2))
    run = examined(labels, features, outputs, task="multi_label", classes=("ant", "bee"))
    document = analyse_baselines(run)
    models = by_name(document)
    assert models["probe"]["metrics"]["f1"]["value"] > 0.85
    assert models["probe"]["metrics"]["hamming_loss"]["value"] < 0.12
    # With the shares of the labels for thresholds every image gets every label.
    assert models["prior"]["metrics"]["mean_average_precision"]["value"] < 0.6
    assert models["probe"]["difference"]["value"] > 0.2


def test_ordered_classes_are_predicted_by_their_median(examined):
    parts = {"train": images(90, seed=1), "val": images(40, seed=2), "test": images(60, seed=3)}
    run = run_of(examined, parts, task="ordinal")
    models = by_name(analyse_baselines(run))
    labels = run.splits["test"].predictions.labels
    shares = np.bincount(run.splits["train"].predictions.labels, minlength=3) / 90
    middle = int((np.cumsum(shares) < 0.5).sum())
    assert models["prior"]["metrics"]["mae"]["value"] == pytest.approx(np.abs(labels - middle).mean())


def test_the_section_says_which_models_are_as_good(run_folder, evaluation):
    metrics = evaluation["splits"]["test"]["metrics"]
    shown = {name: metrics[name] for name in ("accuracy", "balanced_accuracy", "f1")}
    gaps = {"prior": (0.1, 0.3), "neighbours": (-0.1, 0.2), "probe": (-0.4, -0.1)}
    models = [
        {
            "name": name,
            "chosen": {"neighbours": 3} if name == "neighbours" else {},
            "metrics": shown,
            "difference": {"value": 0.0, "low": low, "high": high},
        }
        for name, (low, high) in gaps.items()
    ]
    part = {"tested": "test", "task": "single_label", "compared": "accuracy", "models": models}
    write_json(run_folder / "evaluation.json", {**evaluation, "baselines": part})
    view = view_baselines(read_run(run_folder))
    assert [row["verdict"] for row in view["rows"]] == ["", "better", "not distinguishable", "worse"]
    assert "worse than a linear probe" in view["verdict"]
    assert view["rows"][2]["how"].startswith("the 3 nearest")
    assert view_baselines(read_run(run_folder)) is not None
    write_json(run_folder / "evaluation.json", evaluation)
    assert view_baselines(read_run(run_folder)) is None

import json

import numpy as np
import pytest
from scipy.stats import t

from imagetune.core.files import write_json
from imagetune.evaluation.cross_validation import Fold, describe_folds, estimate_fold_mean, pool_predictions
from imagetune.evaluation.errors.slices import compare_slices
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.reports.run.report import write_report

CONFIG = EvaluateConfig(bootstrap_samples=100)


@pytest.fixture
def folds(made_up):
    def fold(number):
        predictions = made_up(30, 3, seed=number, sharpness=2.0)
        right = float((predictions.predicted == predictions.labels).mean())
        return Fold(f"folds/fold-{number}", 80, 10, 3, predictions, [None] * 30, {"accuracy": right, "roc_auc": None})

    return [fold(number) for number in range(1, 5)]


def test_the_corrected_interval_is_nadeau_and_bengios():
    values = np.array([0.80, 0.84, 0.78, 0.86, 0.82])
    found = estimate_fold_mean(values, left_out=0.25, confidence=0.95)
    # By hand: variance 0.001, times 1/5 + 1/4 = 0.00045; t with 4 degrees of freedom 2.776.
    assert found.value == pytest.approx(0.82)
    assert found.high - 0.82 == pytest.approx(t.ppf(0.975, 4) * 0.00045**0.5)
    assert found.low == pytest.approx(0.82 - 2.776 * 0.0212132, abs=1e-5)
    plain = t.ppf(0.975, 4) * (0.001 / 5) ** 0.5
    assert found.high - 0.82 == pytest.approx(1.5 * plain)


def test_every_image_is_pooled_once(folds):
    pooled = pool_predictions(folds)
    assert len(pooled.paths) == len(pooled.labels) == len(pooled.probabilities) == 120
    np.testing.assert_array_equal(pooled.labels[30:60], folds[1].predictions.labels)


def test_the_document_holds_pooled_metrics_the_spread_and_each_fold(folds):
    found = describe_folds(folds, config=CONFIG, seed=0)
    accuracies = [fold.metrics["accuracy"] for fold in folds]
    assert (found["count"], found["images"]) == (4, 120)
    assert found["pooled"]["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(accuracies))
    spread = found["metrics"]["accuracy"]
    assert spread["mean"] == pytest.approx(np.mean(accuracies))
    assert spread["sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (spread["min"], spread["max"]) == (min(accuracies), max(accuracies))
    # 30 images are left out, 90 were given to training.
    assert spread["high"] - spread["mean"] == pytest.approx(
        t.ppf(0.975, 3) * (np.var(accuracies, ddof=1) * (1 / 4 + 1 / 3)) ** 0.5
    )
    assert "roc_auc" not in found["metrics"]
    assert [fold["folder"] for fold in found["by_fold"]] == [f"folds/fold-{number}" for number in range(1, 5)]


def test_an_interval_of_shares_stays_among_shares(folds):
    for fold, value in zip(folds, (0.9, 1.0, 1.0, 0.8), strict=True):
        fold.metrics["accuracy"] = value
    spread = describe_folds(folds, config=CONFIG, seed=0)["metrics"]["accuracy"]
    assert 0 < spread["low"] < spread["mean"] < spread["high"] == 1.0


def test_the_report_shows_folds_slices_and_gaps(folds, run_folder):
    path = run_folder / "evaluation.json"
    document = json.loads(path.read_text())
    assert set(document["gaps"]) == {"train_val", "train_test", "val_test"}
    random = np.random.default_rng(0)
    attributes = {"camera": random.choice(["a<b>", "c"], 80).astype(object), "size": random.random(80)}
    document["slices"] = compare_slices(
        random.random(80) < 0.8, np.zeros(80, np.int64), attributes, confidence=0.95, grouped=False
    )
    document["folds"] = describe_folds(folds, config=CONFIG, seed=0)
    write_json(path, document)
    page = write_report(run_folder).read_text()
    assert "5 further models" not in page
    assert "4 further models" in page
    assert "folds/fold-4" in page
    assert "camera: a&lt;b&gt;" in page
    assert "training minus test" in page
    assert document["power"]["text"].split(",")[0] in page


def test_a_report_of_an_old_run_has_none_of_them(run_folder):
    path = run_folder / "evaluation.json"
    document = json.loads(path.read_text())
    for key in ("gaps", "power"):
        del document[key]
    for split in document["splits"].values():
        del split["groups"]
        for metric in split["metrics"].values():
            metric.pop("method", None)
    write_json(path, document)
    page = write_report(run_folder).read_text()
    assert "metrics</h2>" in page
    assert "Statistical power" not in page
    assert "Cross-validation" not in page

"""On the real backbone: what it says of the shipped images, of noise, and of photographs."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from imagetune.evaluation.features.out_of_distribution import (
    MIN_IMAGES,
    analyse_out_of_distribution,
    choose_score_threshold,
)
from imagetune.model.build import LOGITS, build_model
from imagetune.model.manifest import read_manifest, save_model
from imagetune.model.out_of_distribution import read_detector
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

CLASSES = ("birds", "boats", "clothing", "desserts", "faces", "flags", "fruit", "mammals")
PIXELS = 32


@pytest.fixture(scope="module")
def features(real_features):
    """Real features of the shipped images by split, with their labels; those of noise and of photographs."""
    labels = np.array([path.split("/")[0] for path in real_features["paths"]])
    drawn = np.random.default_rng(7).choice(["train", "val", "test"], len(labels), p=[0.65, 0.15, 0.2])
    parts = {name: real_features["clipart"][drawn == name] for name in ("train", "val", "test")}
    ood_images = {name: real_features[name] for name in ("noise", "photographs")}
    return {**parts, **ood_images}, {name: labels[drawn == name].tolist() for name in parts}


@pytest.fixture(scope="module")
def model(features, tmp_path_factory):
    """A model whose head is a logistic regression of the features, in a folder of its own, and what it predictions.

    Only its head is used, so that its backbone can have any weights.
    """
    seen, labels = features
    config = ModelConfig(weights="random")
    made = build_model(config, num_classes=len(CLASSES), image_size=(PIXELS, PIXELS))
    with threadpool_limits(1, user_api="blas"):
        head = LogisticRegression(C=0.1, max_iter=500).fit(seen["train"], labels["train"])
    made.get_layer(LOGITS).set_weights([head.coef_.T, head.intercept_])
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(made, folder, config=config, class_names=CLASSES, image=ImageSettings(height=PIXELS, width=PIXELS))
    return made, folder, {name: head.predict_proba(seen[name]) for name in labels}


@pytest.fixture
def run(model, features, examined, tmp_path):
    """Make a run of that model, whose folder holds it, with the score that is asked for."""

    def make(score):
        made, folder, predictions = model
        seen, labels = features
        shutil.copytree(folder, tmp_path / "run" / "model", dirs_exist_ok=True)
        parts = {name: seen[name] for name in labels}
        setting = f", out_of_distribution: {score}"
        return examined(labels, parts, predictions, classes=CLASSES, model=made, evaluate=setting)

    return make


def _evidence(score, model, seen):
    if score == "mahalanobis":
        return seen
    kernel, bias = model[0].get_layer(LOGITS).get_weights()
    return seen @ kernel + bias


@pytest.mark.parametrize("score", ["energy", "mahalanobis"])
def test_noise_and_photographs_are_flagged_among_the_shipped_images(run, features, model, score):
    examined = run(score)
    analyse_out_of_distribution(examined)
    detector = read_detector(examined.folder / "model", read_manifest(examined.folder / "model").out_of_distribution)
    seen, _ = features
    known = detector.scores(_evidence(score, model, seen["test"]), "single_label")
    least = {"energy": {"noise": 0.9, "photographs": 0.85}, "mahalanobis": {"noise": 0.99, "photographs": 0.98}}
    for name in ("noise", "photographs"):
        strange = detector.scores(_evidence(score, model, seen[name]), "single_label")
        area = roc_auc_score(np.repeat([0, 1], [len(known), len(strange)]), np.concatenate([known, strange]))
        print(score, name, area, detector.flagged(strange).mean(), detector.flagged(known).mean())
        assert area >= least[score][name], (score, name, area)


def test_the_threshold_flags_the_stated_share_of_validation(run):
    document = analyse_out_of_distribution(run("energy"))
    assert document["splits"]["val"]["flagged"]["value"] <= 0.05
    assert document["splits"]["val"]["flagged"]["value"] > 0
    assert document["splits"]["test"]["images"] == sum(document["histogram"]["counts"]["test"])
    assert document["highest_scores"][0]["score"] >= document["highest_scores"][1]["score"]


def test_the_manifest_keeps_the_rule_and_the_hash_of_its_statistics(run):
    examined = run("mahalanobis")
    document = analyse_out_of_distribution(examined)
    rule = read_manifest(examined.folder / "model").out_of_distribution
    assert (rule.score, rule.threshold) == ("mahalanobis", document["threshold"])
    assert len(rule.statistics_sha256) == 64


def test_poisoned_test_images_leave_the_threshold_as_it_is(run):
    examined = run("energy")
    threshold = analyse_out_of_distribution(examined)["threshold"]
    test = examined.splits["test"]
    poisoned = replace(test, features=test.features * 50)
    again = analyse_out_of_distribution(replace(examined, splits={**examined.splits, "test": poisoned}))
    assert again["threshold"] == threshold
    assert again["splits"]["test"]["flagged"] != analyse_out_of_distribution(examined)["splits"]["test"]["flagged"]


def test_too_few_validation_images_and_off_leave_the_manifest_alone(run):
    examined = run("off")
    assert analyse_out_of_distribution(examined) is None
    examined = run("energy")
    val = examined.splits["val"]
    few = replace(val, records=val.records[: MIN_IMAGES - 1])
    assert analyse_out_of_distribution(replace(examined, splits={**examined.splits, "val": few})) is None
    assert read_manifest(examined.folder / "model").out_of_distribution is None


def test_a_threshold_is_a_score_of_validation_that_few_lie_above():
    scores = np.random.default_rng(0).permutation(100) / 1.0
    assert choose_score_threshold(scores, 0.05) == 94
    assert (scores > choose_score_threshold(scores, 0.05)).sum() == 5
    assert choose_score_threshold(scores[:10], 0.05) == scores[:10].max()

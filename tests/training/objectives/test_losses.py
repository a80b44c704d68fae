import keras
import numpy as np
import pytest
from plugin_packages import install_module

from imagetune.errors import RecipeError
from imagetune.recipe.sections.learning import LossConfig, TeacherConfig
from imagetune.training.objectives.losses import build_loss

LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0]], np.float32)
LABELS = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], np.float32)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def value(loss, labels=LABELS, logits=LOGITS):
    return float(keras.ops.convert_to_numpy(loss(labels, logits)))


def cross_entropy(labels, logits):
    return float(-(labels * np.log(softmax(logits))).sum(axis=1).mean())


def test_the_default_of_classes_is_cross_entropy():
    assert value(build_loss(LossConfig(), "single_label")) == pytest.approx(cross_entropy(LABELS, LOGITS), rel=1e-5)


def test_smoothing_equals_soft_labels():
    soft = LABELS * 0.7 + 0.1
    loss = build_loss(LossConfig(), "single_label", label_smoothing=0.3)
    assert value(loss) == pytest.approx(cross_entropy(soft, LOGITS), rel=1e-5)


def test_focal_without_focus_is_cross_entropy_and_with_it_plays_down_what_is_right():
    flat = build_loss(LossConfig(name="focal", gamma=0.0), "single_label")
    assert value(flat) == pytest.approx(cross_entropy(LABELS, LOGITS), rel=1e-5)
    chance = softmax(LOGITS)[LABELS == 1.0]
    expected = float((-((1 - chance) ** 2) * np.log(chance)).mean())
    # Keras divides probabilities by their sum once more, which costs a few digits.
    assert value(build_loss(LossConfig(name="focal"), "single_label")) == pytest.approx(expected, rel=1e-3)


def test_squared_earth_movers_distance_equals_a_hand_computation():
    gap = np.cumsum(softmax(LOGITS) - LABELS, axis=1)
    assert value(build_loss(LossConfig(), "ordinal")) == pytest.approx(float((gap**2).sum(axis=1).mean()), rel=1e-5)


def test_a_miss_by_two_ranks_costs_more_than_by_one():
    loss = build_loss(LossConfig(), "ordinal")
    truth = np.array([[1.0, 0.0, 0.0]], np.float32)
    near, far = (np.array([row], np.float32) for row in ([-5.0, 5.0, -5.0], [-5.0, -5.0, 5.0]))
    assert value(loss, truth, far) > 1.5 * value(loss, truth, near)


def test_logit_adjustment_adds_the_log_priors():
    priors = np.array([0.7, 0.2, 0.1])
    loss = build_loss(LossConfig(logit_adjustment=1.0), "single_label", priors=priors)
    expected = cross_entropy(LABELS, LOGITS + np.log(priors))
    assert value(loss) == pytest.approx(expected, rel=1e-5)


def test_several_labels_are_judged_one_by_one():
    chance = 1 / (1 + np.exp(-LOGITS))
    expected = float(-(LABELS * np.log(chance) + (1 - LABELS) * np.log(1 - chance)).mean())
    assert value(build_loss(LossConfig(), "multi_label")) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_adds_its_share():
    predictions = np.array([[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]], np.float32)
    loss = build_loss(LossConfig(), "single_label", teacher=TeacherConfig(run="x", weight=0.25, temperature=2.0))
    expected = 0.75 * cross_entropy(LABELS, LOGITS) + 0.25 * 4.0 * cross_entropy(predictions, LOGITS / 2.0)
    assert value(loss, np.concatenate([LABELS, predictions], axis=1)) == pytest.approx(expected, rel=1e-5)


def test_numbers_are_judged_by_their_distance():
    truth, said = np.array([[1.0], [2.0]], np.float32), np.array([[1.5], [5.0]], np.float32)
    assert value(build_loss(LossConfig(name="mae"), "regression"), truth, said) == pytest.approx(1.75)
    assert value(build_loss(LossConfig(name="mse"), "regression"), truth, said) == pytest.approx((0.25 + 9) / 2)
    assert value(build_loss(LossConfig(), "regression"), truth, said) == pytest.approx((0.125 + 2.5) / 2)


PLUGIN_SOURCE = """
import keras

def gap(targets, logits):
    return keras.ops.sum(keras.ops.abs(targets - logits), axis=-1)

def scalar(targets, logits):
    return keras.ops.sum(logits)

def broken(targets, logits):
    return targets["label"]
"""


@pytest.fixture
def plugin_losses(tmp_path, monkeypatch):
    points = {name: name for name in ("gap", "scalar", "broken")}
    monkeypatch.syspath_prepend(install_module(tmp_path, "loss-pack", "imagetune.losses", points, PLUGIN_SOURCE))


def test_a_plugins_loss_is_averaged_over_the_batch(plugin_losses):
    expected = np.abs(LABELS - LOGITS).sum(axis=1).mean()
    assert value(build_loss(LossConfig(name="gap"), "single_label")) == pytest.approx(expected, rel=1e-5)


def test_a_plugins_loss_gets_smoothed_labels(plugin_losses):
    soft = LABELS * 0.7 + 0.3 / LABELS.shape[1]
    loss = build_loss(LossConfig(name="gap"), "single_label", label_smoothing=0.3)
    assert value(loss) == pytest.approx(np.abs(soft - LOGITS).sum(axis=1).mean(), rel=1e-5)
    each = build_loss(LossConfig(name="gap"), "multi_label", label_smoothing=0.3)
    assert value(each) == pytest.approx(np.abs(LABELS * 0.7 + 0.15 - LOGITS).sum(axis=1).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "reason"), [("scalar", r"it returned the shape \(\), expected \(batch,\)"), ("broken", "fails")]
)
def test_a_plugins_loss_that_fails_says_whose_it_is(plugin_losses, name, reason):
    loss = build_loss(LossConfig(name=name), "single_label")
    with pytest.raises(RecipeError, match=rf"the loss '{name}' of the package loss-pack 0.3 .*{reason}"):
        value(loss)

from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import DivergedError, StoppedError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import OptimizerConfig, TrainConfig
from imagetune.training.measure import lr_find
from imagetune.training.measure.lr_find import (
    MAX_LEARNING_RATE,
    MAX_STEPS,
    MIN_LEARNING_RATE,
    find_stage_learning_rate,
    read_curve,
    restore_variables,
    run_range_test,
    smooth_losses,
)
from imagetune.training.optimization.optimizer import Group, build_optimizer
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stopping import StopRequest

RATES = np.geomspace(MIN_LEARNING_RATE, MAX_LEARNING_RATE, MAX_STEPS)


def typical_losses(*, falls_at=1e-4, min_at=1e-2):
    """Flat, then falling along half a cosine over log(rate), then exploding."""
    progress = np.clip(np.log(RATES / falls_at) / np.log(min_at / falls_at), 0, 1)
    return 1.5 + 0.5 * np.cos(np.pi * progress) + np.maximum(np.log10(RATES / min_at), 0) ** 3


class DeafListener:
    def stage_started(self, event): ...

    def features_done(self, event): ...

    def step_done(self, event): ...

    def epoch_done(self, record): ...


@pytest.fixture
def job(images, tmp_path, tiny):
    """Return a training job of a small random network on the coloured images."""
    data = DataConfig(source=str(images), image_size=32, workers=0, augmentation="light")
    catalog = read_catalog(data)
    splits = split_catalog(catalog, audit_catalog(catalog, data), data, seed=3)

    def make(stage, **train_section):
        config = ModelConfig(backbone=TINY, weights="random")
        stage = {"name": "one", "epochs": 1, "learning_rate": "auto", **stage}
        keras.utils.set_random_seed(3)
        return TrainingJob(
            model=build_model(config, num_classes=3, image_size=(32, 32)),
            backbone=get_backbone(config.backbone),
            config=TrainConfig.model_validate({"batch_size": 8, "stages": [stage], **train_section}),
            images=TrainingImages(splits.train, splits.val, splits.class_names, data),
            folder=tmp_path / "checkpoints",
            seed=3,
            listener=DeafListener(),
            stop=StopRequest(),
        )

    return make


def values_of(model):
    return [keras.ops.convert_to_numpy(variable).copy() for variable in model.variables]


def test_the_valley_lies_in_the_fall_and_before_the_explosion():
    found = read_curve("head", RATES, typical_losses())
    assert 5e-4 < found.valley < 2e-2
    assert 1e-4 < found.steepest < 1e-2
    assert found.suggestion == found.valley


def test_suggestions_move_with_the_curve():
    low = read_curve("head", RATES, typical_losses(falls_at=1e-6, min_at=1e-4))
    high = read_curve("head", RATES, typical_losses(falls_at=1e-4, min_at=1e-2))
    assert high.valley / low.valley == pytest.approx(100, rel=0.5)
    assert high.steepest / low.steepest == pytest.approx(100, rel=0.5)


def test_noise_does_not_end_the_fall():
    noisy = typical_losses() + np.random.default_rng(0).normal(0, 0.05, MAX_STEPS)
    assert 1e-4 < read_curve("head", RATES, noisy).valley < 2e-2


def test_a_loss_that_never_falls_suggests_nothing_and_says_what_to_do():
    found = read_curve("head", RATES, np.linspace(1.0, 4.0, MAX_STEPS))
    assert (found.valley, found.steepest) == (None, None)
    with pytest.raises(DivergedError, match="fell at no learning rate") as caught:
        _ = found.suggestion
    assert "learning_rate to a number" in caught.value.hint


def test_the_steepest_slope_serves_where_there_is_no_valley():
    found = replace(read_curve("head", RATES, typical_losses()), valley=None)
    assert found.suggestion == found.steepest


@pytest.mark.parametrize("losses", [[], [2.0], [np.nan], [2.0, 1.9, np.inf], [1.0] * 8])
def test_short_and_flat_curves_have_no_suggestion(losses):
    with pytest.raises(DivergedError):
        _ = read_curve("head", RATES[: len(losses)], np.array(losses)).suggestion


def test_smoothing_starts_without_bias():
    assert smooth_losses(np.full(5, 3.0)) == pytest.approx(np.full(5, 3.0))
    assert smooth_losses(np.array([1.0, 2.0]))[1] == pytest.approx((0.09 * 1 + 0.1 * 2) / 0.19)


def line_through_two_layers(**optimizer):
    """A model of two weights of one, whose gradients are equal, the lower one with half the learning rate."""
    model = keras.Sequential([keras.Input((1,))])
    for name in ("low", "high"):
        model.add(keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name=name))
    low, high = model.trainable_variables
    groups = [Group(0.5, {0: low}), Group(1.0, {1: high})]
    config = OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.0)
    model.compile(optimizer=build_optimizer(config, groups, **optimizer), loss=lambda y, z: z)
    return model


def ones(count):
    return [(np.ones((4, 1), np.float32), np.ones((4, 1), np.float32))] * count


def test_the_learning_rate_rises_by_the_same_ratio_and_groups_keep_theirs():
    model = line_through_two_layers()
    seen = []
    run_range_test(
        model, ones(MAX_STEPS), check=lambda: seen.append([float(one[0, 0]) for one in values_of(model)[:2]])
    )
    moved = -np.diff(np.array(seen), axis=0)[55:60]
    assert moved[:, 0] / moved[:, 1] == pytest.approx([0.5] * 5, rel=0.05)
    assert moved[1:, 1] / moved[:-1, 1] == pytest.approx([RATES[1] / RATES[0]] * 4, rel=0.05)


def test_the_test_ends_where_the_loss_explodes():
    model = line_through_two_layers()
    model.compile(optimizer=model.optimizer, loss=lambda y, z: keras.ops.square(z - y))
    up_and_down = [(pixels, sign * target) for pixels, target in ones(MAX_STEPS // 2) for sign in (1, -1)]
    rates, losses = run_range_test(model, up_and_down, check=lambda: None)
    assert len(rates) == len(losses) < MAX_STEPS
    assert rates == pytest.approx(RATES[: len(rates)])
    assert losses[-1] > losses[0]


def test_a_small_loss_of_the_first_images_is_no_explosion_of_the_next():
    model = line_through_two_layers()
    model.compile(optimizer=model.optimizer, loss=lambda y, z: keras.ops.square(z - y))
    (pixels, target), *others = ones(MAX_STEPS)
    lucky = (pixels, 0.99 * target)
    _, losses = run_range_test(model, [lucky, *((pixels, 0 * target) for pixels, target in others)], check=lambda: None)
    assert losses[0] < 0.001
    assert losses[1] > 0.9
    assert len(losses) > 50


def test_accumulated_passes_are_one_step():
    single, model = line_through_two_layers(), line_through_two_layers(accumulation=2)
    _, losses = run_range_test(single, ones(MAX_STEPS), check=lambda: None)
    taken = iter(ones(2 * MAX_STEPS))
    _, accumulated = run_range_test(model, taken, accumulation=2, check=lambda: None)
    assert accumulated == pytest.approx(losses, rel=1e-4)
    assert len(list(taken)) == 2 * (MAX_STEPS - len(accumulated))


def test_variables_come_back_after_an_error():
    model = line_through_two_layers()
    before = values_of(model)
    with pytest.raises(RuntimeError), restore_variables(model):
        model.trainable_variables[0].assign([[7.0]])
        raise RuntimeError
    assert np.array_equal(before, values_of(model))


@pytest.mark.slow
def test_a_stage_is_tested_on_its_own_setup_and_leaves_no_trace(job):
    unfrozen = {"unfreeze": "all", "layer_decay": 0.5, "batch_norm": "train"}
    training = job(unfrozen, optimizer="sgd", effective_batch=16, average="ema", mix="mixup")
    before = values_of(training.model)
    found = find_stage_learning_rate(training, training.model, training.config.stages[0])
    assert all(np.array_equal(old, new) for old, new in zip(before, values_of(training.model), strict=True))
    assert len(found.learning_rates) == len(found.losses) > 20
    assert found.learning_rates[0] == pytest.approx(MIN_LEARNING_RATE)
    assert 1e-6 < found.valley < 1.0
    assert not training.folder.exists()
    again = find_stage_learning_rate(training, training.model, training.config.stages[0])
    assert again.suggestion == found.suggestion


def test_a_frozen_backbone_computes_its_features_once(job, monkeypatch):
    training, opened = job({"unfreeze": "none"}), []
    stage = training.config.stages[0]
    monkeypatch.setattr(lr_find, "open_stage_batches", lambda *_, **__: opened.append("images"))
    before = values_of(training.model)
    found = find_stage_learning_rate(training, training.model, stage)
    assert opened == []
    assert len(found.losses) > 20
    assert all(np.array_equal(old, new) for old, new in zip(before, values_of(training.model), strict=True))


def test_a_signal_ends_the_test(job):
    training = job({})
    training.stop.signal_number = 15
    with pytest.raises(StoppedError):
        find_stage_learning_rate(training, training.model, training.config.stages[0])


def test_a_long_flat_stretch_is_not_the_longest_fall():
    drifting = np.concatenate([np.linspace(1.0, 0.999, 60), np.linspace(1.1, 0.5, 25), np.linspace(0.6, 3.0, 15)])
    assert RATES[62] < read_curve("head", RATES, drifting).valley < RATES[95]

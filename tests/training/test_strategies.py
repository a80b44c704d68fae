"""Effects of each training strategy, on a tiny network."""

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model, find_backbone
from imagetune.model.load_weights import load_weights
from imagetune.model.trainable import list_blocks, list_leaf_layers
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.loop.callback import StageCallback
from imagetune.training.loop.fit import train
from imagetune.training.objectives.distillation import Teacher
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stopping import StopRequest

SMALL = ModelConfig(backbone=TINY, weights="random", head={"dropout": 0.0})


class Recorder:
    """Listener that records all events."""

    def __init__(self):
        self.stages, self.epochs = [], []

    def stage_started(self, event):
        self.stages.append(event)

    def features_done(self, event):
        pass

    def step_done(self, event):
        pass

    def epoch_done(self, record):
        self.epochs.append(record)


@pytest.fixture
def job(images, tmp_path, tiny):
    """Return a training job on the coloured images; the same seed gives the same one."""
    data = DataConfig(source=str(images), image_size=48, workers=0, augmentation="none")
    catalog = read_catalog(data)
    splits = split_catalog(catalog, audit_catalog(catalog, data), data, seed=3)

    def make(predicting=None, **train_section):
        def build(size):
            model = build_model(SMALL, num_classes=3, image_size=size)
            load_weights(model, SMALL)
            return model

        keras.utils.set_random_seed(5)
        return TrainingJob(
            model=build((48, 48)),
            backbone=get_backbone(TINY),
            config=TrainConfig.model_validate({"batch_size": 8, **train_section}),
            images=TrainingImages(splits.train[:16], splits.val, splits.class_names, data),
            folder=tmp_path / "checkpoints",
            seed=3,
            listener=Recorder(),
            stop=StopRequest(),
            rebuild=build,
            teacher=predicting,
        )

    return make


def stage(name="all", **values):
    common = {"unfreeze": "last 2 blocks", "epochs": 1, "learning_rate": 1e-3, "schedule": "constant"}
    return {"name": name, **common, **values}


def weights_of(model):
    return [weight.copy() for weight in model.get_weights()]


def moved(before, after):
    return float(np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, after, strict=True))))


def backbone_move(training):
    before = weights_of(find_backbone(training.model))
    train(training)
    return moved(before, weights_of(find_backbone(training.model)))


def test_l2_sp_keeps_the_backbone_nearer_to_its_start(job):
    free = backbone_move(job(stages=[stage(epochs=3)]))
    held = backbone_move(job(stages=[stage(epochs=3)], regularisation={"l2_sp": 1.0}))
    assert held < 0.85 * free


def test_l2_makes_kernels_smaller(job):
    def size(**section):
        training = job(stages=[stage()], optimizer={"name": "adamw", "weight_decay": 0.0}, **section)
        train(training)
        return sum(float((weight**2).sum()) for weight in weights_of(find_backbone(training.model)) if weight.ndim > 1)

    assert size(regularisation={"l2": 1.0}) < 0.995 * size()


def test_a_decayed_block_moves_less(job):
    def lower_block(decay):
        training = job(stages=[stage(layer_decay=decay)], optimizer={"name": "sgd", "momentum": 0.0})
        name = list_blocks(training.model, training.backbone)[-2].layers[0]
        layer = next(layer for layer in list_leaf_layers(training.model) if layer.name == name)
        before = weights_of(layer)
        train(training)
        return moved(before, weights_of(layer))

    assert 0.0 < lower_block(0.2) < 0.1 * lower_block(1.0)


def test_a_frozen_head_stays_bit_identical_while_the_backbone_learns(job):
    training = job(stages=[stage(freeze_head=True)])
    head, backbone = weights_of(training.model.get_layer("logits")), weights_of(find_backbone(training.model))
    train(training)
    assert moved(head, weights_of(training.model.get_layer("logits"))) == 0.0
    assert moved(backbone, weights_of(find_backbone(training.model))) > 0.0


def test_a_stage_may_train_on_smaller_images(job):
    training = job(stages=[stage("small", image_size=32, learning_rate=1e-4), stage("large", learning_rate=1e-4)])
    before = weights_of(find_backbone(training.model))
    train(training)
    assert training.model.input_shape[1:3] == (48, 48)
    assert [record.stage for record in training.listener.epochs] == ["small", "large"]
    assert moved(before, weights_of(find_backbone(training.model))) > 0.0


def test_the_validated_weights_are_those_of_the_average(job, monkeypatch):
    seen = []
    commit = StageCallback._commit

    def spy(callback, state):
        seen.append(weights_of(callback.job.model))
        return commit(callback, state)

    monkeypatch.setattr(StageCallback, "_commit", spy)
    train(job(stages=[stage(epochs=4)], average={"name": "none"}))
    ends, seen[:] = list(seen), []
    train(job(stages=[stage(epochs=4)], average={"name": "swa", "last_fraction": 0.75}))
    assert moved(seen[0], ends[0]) == 0.0
    for epoch in (1, 2, 3):
        mean = [np.mean(each, axis=0) for each in zip(*ends[1 : epoch + 1], strict=True)]
        assert moved(seen[epoch], mean) < 1e-2 * moved(seen[epoch], ends[0])


def test_an_exponential_average_lags_behind_what_is_learned(job):
    fast = backbone_move(job(stages=[stage(epochs=2)]))
    slow = backbone_move(job(stages=[stage(epochs=2)], average={"name": "ema", "decay": 0.95}))
    assert 0.0 < slow < fast


def test_mixing_sampling_focal_loss_and_clipping_go_together(job):
    training = job(
        stages=[stage(epochs=2, augmentation="light", layer_decay=0.8)],
        mix="both",
        sampling="balanced",
        loss={"name": "focal", "logit_adjustment": 0.5},
        class_weights="effective_number",
        optimizer={"name": "adamw", "clip_norm": 1.0},
        average="ema",
    )
    best = train(training)
    assert np.isfinite(best.val["loss"])


def test_accumulated_passes_train_like_the_large_batch(job):
    def trained(**section):
        training = job(stages=[stage(learning_rate=1e-2)], optimizer={"name": "sgd", "momentum": 0.0}, **section)
        before = weights_of(training.model)
        train(training)
        return before, weights_of(training.model)

    before, whole = trained(batch_size=8)
    _, parted = trained(batch_size=4, effective_batch=8)
    assert moved(whole, parted) < 0.02 * moved(before, whole)


def test_a_teacher_pulls_the_pupil_towards_its_predictions(job):
    always = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")])
    always.set_weights([np.zeros((768, 3)), np.array([0.0, 9.0, 0.0])])
    teacher = Teacher(always, np.array([0, 1, 2]), 1.0)
    section = {"run": "x", "weight": 1.0, "temperature": 1.0}
    # Validation gets worse, as this teacher is always wrong: the best epoch would be the first.
    kept = {"keep": "last"}
    training = job(teacher, stages=[stage(epochs=12, learning_rate=1e-2)], teacher=section, early_stopping=kept)
    train(training)
    predictions = training.model.predict(np.full((1, 48, 48, 3), 200, np.uint8), verbose=0)
    assert predictions[0, 1] > 0.9


def test_statistics_are_taken_anew_before_training(job):
    training = job(stages=[stage("head", unfreeze="none")], batch_norm_statistics="reestimate")
    norms = [layer for layer in list_leaf_layers(training.model) if isinstance(layer, keras.layers.BatchNormalization)]
    before = [norm.get_weights() for norm in norms]
    train(training)
    changed = []
    for (gamma, beta, mean, _), norm in zip(before, norms, strict=True):
        now = norm.get_weights()
        np.testing.assert_array_equal(gamma, now[0])
        np.testing.assert_array_equal(beta, now[1])
        changed.append(np.abs(mean - now[2]).max() > 0.01 * np.abs(mean).max())
    assert np.mean(changed) > 0.5

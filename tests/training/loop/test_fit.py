import gc

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.loop.checkpoints import list_checkpoints
from imagetune.training.loop.fit import train
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stopping import StopRequest


class Recorder(SilentListener):
    """Listener that records all events."""

    def __init__(self):
        self.stages, self.steps, self.epochs = [], [], []

    def stage_started(self, event):
        self.stages.append(event)

    def step_done(self, event):
        self.steps.append(event)

    def epoch_done(self, record):
        self.epochs.append(record)


@pytest.fixture
def job(images, tmp_path, tiny):
    """Return a training job of a small random network on the coloured images."""
    data = DataConfig(source=str(images), image_size=32, workers=0, augmentation="none")
    catalog = read_catalog(data)
    splits = split_catalog(catalog, audit_catalog(catalog, data), data, seed=3)

    def make(**train_section):
        config = ModelConfig(backbone=TINY, weights="random")
        return TrainingJob(
            model=build_model(config, num_classes=3, image_size=(32, 32)),
            backbone=get_backbone(config.backbone),
            config=TrainConfig.model_validate({"batch_size": 8, **train_section}),
            images=TrainingImages(splits.train, splits.val, splits.class_names, data),
            folder=tmp_path / "checkpoints",
            seed=3,
            listener=Recorder(),
            stop=StopRequest(),
        )

    return make


def stage(name, **values):
    return {"name": name, "epochs": 1, "learning_rate": 1e-2, **values}


def test_a_stage_that_cannot_beat_its_start_leaves_the_model_as_it_was(job):
    ruinous = stage("ruin", unfreeze="all", learning_rate=5.0, schedule="constant")
    training = job(stages=[stage("head", epochs=2), ruinous])
    best = train(training)
    assert best.stage == "head"
    assert [record.stage for record in training.listener.epochs] == ["head", "head", "ruin"]
    assert training.listener.epochs[-1].val["loss"] > best.val["loss"]
    newest = list_checkpoints(training.folder)
    assert f"step-{best.step:08d}" in {path.name for path in newest}


def test_the_last_epoch_is_kept_where_the_recipe_says_so_however_bad_it_is(job):
    ruinous = stage("ruin", unfreeze="all", learning_rate=5.0, schedule="constant")
    training = job(stages=[stage("head", epochs=2), ruinous], early_stopping={"keep": "last"})
    best = train(training)
    assert best == training.listener.epochs[-1]
    assert best.stage == "ruin"


@pytest.mark.parametrize(
    ("optimizer", "schedule"), [("sgd", "plateau"), ("lion", "exponential"), ("rmsprop", "constant")]
)
def test_optimizers_schedules_and_layer_decay_go_together(job, optimizer, schedule):
    top = stage("top", unfreeze="last 2 blocks", layer_decay=0.5, learning_rate=1e-3, epochs=2)
    top["schedule"] = {"name": schedule, "patience": 0}
    training = job(stages=[top], optimizer=optimizer, class_weights="balanced", label_smoothing=0.1)
    train(training)
    rates = list(training.listener.stages[0].learning_rates.values())
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 1e-3])
    assert all(np.isfinite(record.val["loss"]) for record in training.listener.epochs)


def test_early_stopping_ends_a_stage(job):
    patient = {"metric": "accuracy", "patience": 0, "min_delta": 1.0}
    training = job(stages=[stage("head", epochs=20)], early_stopping=patient)
    train(training)
    assert len(training.listener.epochs) == 2


def test_steps_and_epochs_count_on_over_stages(job):
    training = job(stages=[stage("a"), stage("b")])
    train(training)
    steps = training.listener.stages[0].steps_per_epoch
    assert [record.step for record in training.listener.epochs] == [steps, 2 * steps]
    assert [record.epoch for record in training.listener.epochs] == [1, 2]
    assert training.listener.stages[1].first_epoch == 2


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow keeps graphs")
def test_a_training_that_is_over_leaves_no_graph_behind(job):
    def graphs():
        for _ in range(3):  # a part of a model that is kept with it goes one collection later
            gc.collect()
        return [one for one in gc.get_objects() if type(one).__name__ == "FuncGraph"]

    before = graphs()
    train(job(stages=[stage("a"), stage("b", unfreeze="last 1 blocks")]))
    assert [one.name for one in graphs() if not any(one is earlier for earlier in before)] == []

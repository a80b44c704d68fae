"""Stages that are solved, stages that must beat the head, and the refit on all images."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.loading.targets import compute_value_scale
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import LOGITS, build_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.loop.checkpoints import list_checkpoints, require_resume_point
from imagetune.training.loop.fit import train
from imagetune.training.loop.refit import find_refit_stage, refit_head
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stopping import StopRequest

MODEL = ModelConfig.model_validate({"backbone": TINY, "weights": "random", "head": {"dropout": 0.3}})
HEAD = {"name": "head", "solve": True}
RUIN = {"name": "ruin", "unfreeze": "all", "epochs": 2, "learning_rate": 5.0, "schedule": "constant"}


class Recorder(SilentListener):
    """Listener that records stages, epochs and judgements."""

    def __init__(self):
        self.stages, self.epochs, self.judged = [], [], []

    def stage_started(self, event):
        self.stages.append(event)

    def stage_judged(self, event):
        self.judged.append(event)

    def epoch_done(self, record):
        self.epochs.append(record)


@pytest.fixture
def job(images, tmp_path, tiny):
    """Return a training job of a small random network on the coloured images, as a fresh process would make it."""

    def make(folder="checkpoints", *, labels=None, task="single_label", **train_section):
        source = images
        if labels is not None:
            paths = sorted(path for path in images.rglob("*.png"))
            source = tmp_path / f"{task}.csv"
            rows = [f"{path},{labels(path)}" for path in paths]
            source.write_text("\n".join(["path,label", *rows]), encoding="utf-8")
        data = DataConfig(source=str(source), image_size=32, workers=0, augmentation="none", task=task)
        catalog = read_catalog(data)
        audit = audit_catalog(catalog, data)
        splits = split_catalog(catalog, audit, data, seed=3)
        keras.utils.set_random_seed(3)
        scale = compute_value_scale([record.label for record in splits.train]) if task == "regression" else None
        outputs = len(splits.class_names)
        model = build_model(MODEL, num_classes=outputs, image_size=(32, 32), task=task, scale=scale)
        return TrainingJob(
            model=model,
            backbone=get_backbone(MODEL.backbone),
            config=TrainConfig.model_validate({"batch_size": 8, **train_section}),
            images=TrainingImages(splits.train, splits.val, splits.class_names, data, audit.hashes),
            folder=tmp_path / folder,
            seed=3,
            listener=Recorder(),
            stop=StopRequest(),
        )

    return make


def test_a_solved_head_is_better_than_one_trained_for_a_dozen_epochs(job):
    solved, trained = job("a", stages=[HEAD]), job("b", stages="linear_probe", solve=False)
    assert train(solved).val["loss"] < train(trained).val["loss"]
    (record,) = solved.listener.epochs
    assert (record.epoch, record.step, record.learning_rate) == (1, 1, None)
    assert record.solved["strength"] > 0
    assert record.solved["rows"] == len(solved.images.train)
    assert solved.listener.stages[0].solved


def test_augmented_copies_are_rows_beside_the_images_themselves(job):
    stage = {**HEAD, "augmentation": "light", "augmented_copies": 2}
    training = job(stages=[stage])
    assert train(training).solved["rows"] == 3 * len(training.images.train)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("multi_label", lambda path: {"red": "warm", "green": "cold", "blue": "cold;dark"}[path.parent.name]),
        ("ordinal", lambda path: {"red": 1, "green": 2, "blue": 3}[path.parent.name]),
        ("regression", lambda path: {"red": 1.5, "green": 250, "blue": 600}[path.parent.name]),
    ],
)
def test_every_task_has_a_convex_problem_that_learns_the_colours(job, task, labels):
    best = train(job(stages=[HEAD], labels=labels, task=task))
    # Six validation images: most of them are right, or most of the variance is explained in training.
    assert best.train["r2"] > 0.8 if task == "regression" else best.val["accuracy"] > 0.8


def test_a_stage_that_does_not_clearly_beat_the_head_is_dropped_and_said(job):
    training = job(stages=[HEAD, {**RUIN, "learning_rate": 1e-7, "min_gain_standard_errors": 1e6}])
    best = train(training)
    assert best.stage == "head"
    (judged,) = training.listener.judged
    assert not judged.kept
    assert len(training.listener.epochs) == 3


def test_a_stage_without_a_better_epoch_is_said_to_be_dropped(job):
    training = job(stages=[HEAD, RUIN])
    assert train(training).stage == "head"
    (judged,) = training.listener.judged
    assert (judged.kept, judged.gain) == (False, None)


def test_a_stage_that_clearly_beats_its_start_is_kept(job):
    weak = {"name": "weak", "epochs": 1, "learning_rate": 1e-6}
    training = job(stages=[weak, {**HEAD, "name": "better"}, {**RUIN, "learning_rate": 1e-2}])
    better = {"name": "strong", "unfreeze": "all", "epochs": 6, "learning_rate": 1e-2, "min_gain_standard_errors": 0.5}
    training = job(stages=[weak, better])
    best = train(training)
    assert best.stage == "strong"
    (judged,) = training.listener.judged
    assert judged.kept
    assert judged.gain > 0.5 * judged.standard_error


def test_training_goes_on_after_a_solved_head_as_if_it_had_never_stopped(job):
    stages = [{**HEAD}, {"name": "top", "unfreeze": "last 2 blocks", "epochs": 2, "learning_rate": 1e-3}]
    whole, first = job("whole", stages=stages), job("first", stages=stages)
    train(whole)
    train(first, until_epoch=1)
    second = job("second", stages=stages)
    train(second, start_from=require_resume_point(first.folder))
    assert [record.val for record in whole.listener.epochs[1:]] == [record.val for record in second.listener.epochs]
    for one, other in zip(whole.model.get_weights(), second.model.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_the_checkpoint_to_beat_outlives_many_epochs(job):
    top = {"name": "top", "unfreeze": "all", "epochs": 5, "learning_rate": 1e-3, "min_gain_standard_errors": 1e6}
    training = job(stages=[HEAD, top])
    best = train(training)
    assert best.stage == "head"
    assert "step-00000001" in {path.name for path in list_checkpoints(training.folder)}


def test_a_refit_learns_from_the_validation_images_too(job):
    training = job(stages=[HEAD])
    best = train(training)
    stage = find_refit_stage(training.config, best, validated=True)
    before = training.model.get_layer(LOGITS).get_weights()
    count = refit_head(training, stage, best)
    assert count == len(training.images.train) + len(training.images.val)
    assert not np.allclose(training.model.get_layer(LOGITS).get_weights()[0], before[0])


def test_only_a_head_on_a_backbone_that_nobody_has_trained_is_refit(job):
    training = job(stages=[HEAD])
    best = train(training)
    config = training.config
    assert find_refit_stage(config, best, validated=True) == config.stages[0]
    assert find_refit_stage(config, best, validated=False) is None
    assert find_refit_stage(config.model_copy(update={"refit": "off"}), best, validated=True) is None
    assert find_refit_stage(config, replace(best, solved={}), validated=True) is None
    tuned = TrainConfig.model_validate(
        {"stages": [{"name": "top", "unfreeze": "last 1 blocks", "epochs": 1, "learning_rate": 1e-3}, HEAD]}
    )
    assert find_refit_stage(tuned, best, validated=True) is None


def test_a_record_of_a_solved_head_goes_through_json(job):
    training = job(stages=[HEAD])
    best = train(training)
    assert json.loads(json.dumps(best.as_json()))["solved"] == best.solved
    trained = replace(best, solved={}, learning_rate=0.1)
    assert "solved" not in trained.as_json()

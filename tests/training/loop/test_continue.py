"""Resumed training gives the same result as training without interruption."""

import json
import random
import shutil
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
from tiny_backbones import TINY

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import CheckpointError, StoppedError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.loop.checkpoints import list_checkpoints, require_resume_point
from imagetune.training.loop.fit import train
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stopping import StopRequest

MODEL = ModelConfig.model_validate({"backbone": TINY, "weights": "random", "head": {"dropout": 0.3}})


class Recorder(SilentListener):
    """Listener that records all events."""

    def __init__(self):
        self.stages, self.epochs = [], []

    def stage_started(self, event):
        self.stages.append(event)

    def epoch_done(self, record):
        self.epochs.append(record)


def build(size):
    return build_model(MODEL, num_classes=3, image_size=size)


@pytest.fixture(scope="module")
def split(images, tiny):
    data = DataConfig(source=str(images), image_size=32, workers=0)
    catalog = read_catalog(data)
    audit = audit_catalog(catalog, data)
    return split_catalog(catalog, audit, data, seed=3), audit.hashes


def make_job(split, place, folder, *, data=None, **train_section):
    """Return a training job as a process that has just started would, in a folder of its own."""
    splits, hashes = split
    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    model = build((32, 32))
    random.seed(folder)  # what else a process has drawn must not matter
    config = DataConfig(source="unused", image_size=32, workers=0, **(data or {}))
    return TrainingJob(
        model=model,
        backbone=get_backbone(MODEL.backbone),
        config=TrainConfig.model_validate({"batch_size": 8, **train_section}),
        images=TrainingImages(splits.train, splits.val, splits.class_names, config, hashes),
        folder=place / folder,
        seed=3,
        listener=Recorder(),
        stop=StopRequest(),
        rebuild=build,
    )


@pytest.fixture
def job(split, tmp_path):
    return partial(make_job, split, tmp_path)


@pytest.fixture(scope="module")
def interrupted(split, tmp_path_factory):
    """Checkpoints of a head that was to train for two epochs and was interrupted after one; nobody changes them."""
    short = make_job(split, tmp_path_factory.mktemp("interrupted"), "short", stages=[stage("head", 2)])
    train(short, until_epoch=1)
    return short.folder


def stage(name, epochs, **values):
    return {"name": name, "epochs": epochs, "learning_rate": 1e-2, **values}


def metrics(record):
    return replace(record, images_per_second=0.0)


def assert_same(record, other):
    assert (record.stage, record.epoch, record.step) == (other.stage, other.epoch, other.step)
    assert record.learning_rate == pytest.approx(other.learning_rate, rel=1e-7)
    for name, value in {**record.train, **{f"val_{key}": one for key, one in record.val.items()}}.items():
        there = other.val[name[4:]] if name.startswith("val_") else other.train[name]
        assert value == pytest.approx(there, abs=1e-6), name


def check_parts(job, parts, **section):
    """Train to the end at once, and again in parts; return the records of both."""
    whole = job("whole", **section)
    best = train(whole)
    expected = whole.listener.epochs
    found, before = [], None
    for number, until in enumerate([*parts, None]):
        part = job(f"part {number}", **section)
        last = train(part, start_from=before, until_epoch=until)
        found += part.listener.epochs
        before = require_resume_point(part.folder)
    assert len(found) == len(expected)
    for record, other in zip(found, expected, strict=True):
        assert_same(record, other)
    assert_same(last, best)
    for one, other in zip(part.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    return found, part


TOP = stage("top", 3, unfreeze="last 1 blocks", learning_rate=1e-3, layer_decay=0.5, batch_norm="train")


SLOW = pytest.mark.slow


@pytest.mark.parametrize("until", [pytest.param(1, marks=SLOW), 2, pytest.param(4, marks=SLOW)])
def test_a_head_and_a_part_of_the_backbone_across_the_boundary_of_stages(job, until):
    check_parts(job, [until], stages=[stage("head", 2), TOP])


@SLOW
def test_an_interruption_after_every_epoch(job):
    check_parts(job, [1, 2, 3], stages=[stage("head", 2), stage("more", 2, unfreeze="last 1 blocks")])


@SLOW
@pytest.mark.parametrize(
    "section",
    [
        {"optimizer": {"name": "sgd", "nesterov": True}, "cache": "off"},
        {"optimizer": "lion", "mix": "both", "label_smoothing": 0.1},
        {"batch_size": 4, "effective_batch": 8, "sampling": "balanced", "regularisation": {"l2_sp": 0.1}},
    ],
    ids=["uncached sgd", "mixed lion", "accumulated balanced"],
)
def test_optimizers_and_ways_to_feed_them(job, section):
    check_parts(job, [2], stages=[stage("head", 3, unfreeze="last 1 blocks", learning_rate=1e-3)], **section)


@SLOW
@pytest.mark.parametrize("average", ["ema", {"name": "swa", "last_fraction": 0.8}])
def test_averaged_weights(job, average):
    first = stage("head", 4, unfreeze="last 1 blocks", batch_norm="train", learning_rate=1e-3)
    check_parts(job, [1, 3], stages=[first, stage("more", 1, unfreeze="last 1 blocks")], average=average)


@pytest.mark.slow
def test_a_plateau_falls_when_it_would_have(job):
    schedule = {"name": "plateau", "patience": 0, "factor": 0.5, "warmup_epochs": 0.5, "final_fraction": 0.01}
    stalls = {"metric": "accuracy", "min_delta": 1.0}
    found, _ = check_parts(job, [2, 3], stages=[stage("head", 5, schedule=schedule)], early_stopping=stalls)
    assert [record.learning_rate for record in found[1:]] == pytest.approx([1e-2, 5e-3, 2.5e-3, 1.25e-3])


@pytest.mark.parametrize("until", [pytest.param(2, marks=SLOW), 3])
def test_early_stopping_has_waited_already(job, until):
    stalls = {"metric": "accuracy", "min_delta": 1.0, "patience": 1}
    found, _ = check_parts(job, [until], stages=[stage("head", 6), stage("more", 1)], early_stopping=stalls)
    assert [record.stage for record in found] == ["head", "head", "head", "more"]


@SLOW
@pytest.mark.parametrize("until", [1, 2, 3])
def test_a_stage_with_an_image_size_of_its_own(job, until):
    small = stage("small", 2, unfreeze="last 1 blocks", image_size=48, learning_rate=1e-3)
    large = stage("large", 2, unfreeze="last 1 blocks", image_size=40, learning_rate=1e-3)
    check_parts(job, [until], stages=[small, large], average="ema")


def test_a_learning_rate_that_was_found_is_not_sought_again(job):
    found, part = check_parts(job, [1], stages=[stage("head", 2, learning_rate="auto")])
    assert part.listener.stages[0].found_learning_rate is not None
    assert found[0].stage == "head"


@SLOW
def test_features_are_cut_where_they_were(job):
    top = stage("top", 3, unfreeze="last 1 blocks", learning_rate=1e-3)
    _, part = check_parts(job, [1], stages=[top], data={"augmentation": "none"})
    start = json.loads((list_checkpoints(part.folder)[-1] / "state.json").read_text())
    assert part.listener.stages[0].features == start["stage"]["features_reason"]


def test_training_that_was_at_its_end_stays_as_it_is(job):
    stages = [stage("head", 2)]
    whole = job("whole", stages=stages)
    best = train(whole)
    again = job("again", stages=stages)
    assert_same(train(again, start_from=require_resume_point(whole.folder)), best)
    assert again.listener.epochs == []
    assert {path.name for path in list_checkpoints(again.folder)} <= {
        path.name for path in list_checkpoints(whole.folder)
    }


def test_training_ends_when_it_is_enough_and_can_go_on(job):
    stages = [stage("head", 3), stage("more", 1, unfreeze="last 1 blocks")]
    short = job("short", stages=stages)
    train(short, stop_when=lambda record: record.epoch == 2)
    assert [record.epoch for record in short.listener.epochs] == [1, 2]
    rest = job("rest", stages=stages)
    train(rest, start_from=require_resume_point(short.folder))
    assert [record.epoch for record in rest.listener.epochs] == [3, 4]


def test_the_earlier_training_is_left_as_it_was(job):
    stages = [stage("head", 3)]
    short = job("short", stages=stages)
    train(short, until_epoch=1)
    before = {path: path.read_bytes() for path in sorted(short.folder.rglob("*")) if path.is_file()}
    train(job("rest", stages=stages), start_from=require_resume_point(short.folder))
    assert {path: path.read_bytes() for path in sorted(short.folder.rglob("*")) if path.is_file()} == before


class StopAt(StopRequest):
    """A request to stop after a number of passes."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise StoppedError(None)


def check_interrupted(job, steps, **section):
    """Train at once, and again in one folder with a stop after so many passes each time; the results are equal."""
    whole = job("whole", **section)
    best = train(whole)
    records, start = {}, None
    for step in [*steps, None]:
        part = job("part", **section)
        if step is not None:
            part = replace(part, stop=StopAt(step))
            with pytest.raises(StoppedError):
                train(part, start_from=start)
        else:
            last = train(part, start_from=start)
        records |= {record.epoch: record for record in part.listener.epochs}
        start = None if step is None else require_resume_point(part.folder)
    for other in whole.listener.epochs:
        assert metrics(records[other.epoch]) == metrics(other)
    assert metrics(last) == metrics(best)
    for one, other in zip(part.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_stop_within_an_epoch_loses_nothing(job):
    check_interrupted(job, [1, 1, 3], stages=[stage("head", 2), stage("more", 2, unfreeze="last 1 blocks")])


@SLOW
@pytest.mark.parametrize(
    "section",
    [
        {"optimizer": {"name": "sgd", "nesterov": True}, "cache": "off", "average": "ema"},
        {"average": {"name": "swa", "last_fraction": 0.8}, "mix": "both", "label_smoothing": 0.1},
        {"batch_size": 4, "effective_batch": 8, "sampling": "balanced", "regularisation": {"l2_sp": 0.1}},
        {"early_stopping": {"metric": "accuracy", "min_delta": 1.0, "patience": 0}},
    ],
    ids=["uncached sgd ema", "mixed swa", "accumulated balanced", "stopped early"],
)
def test_a_stop_within_an_epoch_loses_nothing_of(job, section):
    schedule = {"name": "plateau", "patience": 0, "factor": 0.5, "warmup_epochs": 0.5, "final_fraction": 0.01}
    first = stage("head", 3, unfreeze="last 1 blocks", learning_rate=1e-3, schedule=schedule)
    small = stage("small", 2, unfreeze="last 1 blocks", image_size=48, learning_rate=1e-3, batch_norm="train")
    check_interrupted(job, [1, 2, 2], stages=[first, small], **section)


def test_a_commit_after_every_step_changes_nothing(job):
    stages = [stage("head", 2, unfreeze="last 1 blocks")]
    whole, often = job("whole", stages=stages), job("often", stages=stages, commit_minutes=1e-9)
    assert metrics(train(often)) == metrics(train(whole))
    for one, other in zip(often.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_corrupted_checkpoint_is_passed_over_in_its_own_folder(job):
    stages = [stage("head", 3, unfreeze="last 1 blocks")]
    whole = job("whole", stages=stages)
    best = train(whole)
    short = job("short", stages=stages)
    train(short, until_epoch=2)
    (list_checkpoints(short.folder)[-1] / "resume.npz").write_bytes(b"")
    rest = job("short", stages=stages)
    assert metrics(train(rest, start_from=require_resume_point(rest.folder))) == metrics(best)
    assert [record.epoch for record in rest.listener.epochs] == [2, 3]


@pytest.mark.parametrize("name", ["resume.npz", "changed.npz", "start.npz", "state.json"])
def test_a_corrupted_checkpoint_is_not_gone_on_from(job, interrupted, tmp_path, name):
    short = shutil.copytree(interrupted, tmp_path / "short")
    path = list_checkpoints(short)[-1] / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError):
        train(job("rest", stages=[stage("head", 2)]), start_from=require_resume_point(short))


def test_without_a_checkpoint_nothing_is_gone_on_from(job, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(job("rest", stages=[stage("head", 2)]), start_from=require_resume_point(tmp_path / "nowhere"))


def test_another_recipe_does_not_go_on(job, interrupted):
    with pytest.raises(CheckpointError, match="'head'"):
        train(job("rest", stages=[stage("top", 2)]), start_from=require_resume_point(interrupted))
    with pytest.raises(CheckpointError, match="optimizer"):
        train(
            job("more", stages=[stage("head", 2, unfreeze="last 1 blocks")]),
            start_from=require_resume_point(interrupted),
        )

"""Training on cached features of frozen layers, compared with training on images."""

import gc
import hashlib
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from tiny_backbones import PLAIN, TINY

from imagetune.core.row_store import find_cache_root
from imagetune.data.audit.audit import audit_catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import BadImageError, StoppedError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.model.split_model import list_frozen_boundaries, split_model_at
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.feature_cache.plan import AUTO_COPIES, plan_features
from imagetune.training.loop.fit import train
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stopping import StopRequest


class Recorder(SilentListener):
    """Listener that records all events."""

    def __init__(self):
        self.stages, self.features, self.epochs = [], [], []

    def stage_started(self, event):
        self.stages.append(event)

    def features_done(self, event):
        self.features.append(event)

    def epoch_done(self, record):
        self.epochs.append(record)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def job(images, tmp_path, own_cache, tiny):
    """Return a training job of a random network; every call begins with the same weights."""

    def make(*, augmentation="none", backbone=PLAIN, hashes=True, **train_section):
        data = DataConfig(source=str(images), image_size=32, workers=0, augmentation=augmentation)
        catalog = read_catalog(data)
        audit = audit_catalog(catalog, data)
        splits = split_catalog(catalog, audit, data, seed=3)
        config = ModelConfig(backbone=backbone, weights="random")
        keras.utils.set_random_seed(3)  # equal weights, and dropout that draws alike
        model = build_model(config, num_classes=3, image_size=(32, 32))
        known = audit.hashes if hashes else {}
        return TrainingJob(
            model=model,
            backbone=get_backbone(config.backbone),
            config=TrainConfig.model_validate({"batch_size": 8, **train_section}),
            images=TrainingImages(splits.train, splits.val, splits.class_names, data, known),
            folder=tmp_path / f"checkpoints{len(list(tmp_path.iterdir()))}",
            seed=3,
            listener=Recorder(),
            stop=StopRequest(),
        )

    return make


def stage(name="head", **values):
    return {"name": name, "epochs": 3, "learning_rate": 1e-2, **values}


def trained(job):
    train(job)
    return job.listener


@pytest.fixture(scope="module")
def plain_runs():
    return {}


@pytest.fixture
def uncached(job, plain_runs):
    """The plain head stage without a cache, trained once for all tests."""
    if "head" not in plain_runs:
        plain_runs["head"] = trained(job(stages=[stage()], cache="off"))
    return plain_runs["head"]


def assert_same_training(one, other, tolerance=1e-4):
    assert len(one.epochs) == len(other.epochs)
    for a, b in zip(one.epochs, other.epochs, strict=True):
        for mine, theirs in ((a.train, b.train), (a.val, b.val)):
            assert mine == pytest.approx(theirs, abs=tolerance)


def test_a_frozen_backbone_trains_alike_from_features_and_from_images(job, uncached):
    cached = trained(job(stages=[stage()]))
    assert "features of pooling" in cached.stages[0].features
    assert_same_training(cached, uncached)


@pytest.mark.slow
def test_a_real_frozen_backbone_trains_alike_from_features_and_from_images(job):
    cached = trained(job(stages=[stage()], backbone="efficientnet_lite0"))
    assert "features of pooling" in cached.stages[0].features
    assert_same_training(cached, trained(job(stages=[stage()], backbone="efficientnet_lite0", cache="off")))


def test_as_many_copies_as_epochs_are_the_augmentation_of_an_uncached_run(job):
    cached = trained(job(stages=[stage(augmented_copies=3)], augmentation="strong"))
    assert_same_training(cached, trained(job(stages=[stage()], augmentation="strong", cache="off")))


def test_fewer_copies_take_turns(job):
    listener = trained(job(stages=[stage(epochs=4, augmented_copies=2)], augmentation="strong"))
    assert "x 2 augmented copies" in listener.stages[0].features
    whole = listener.features[-1]
    assert whole.done == whole.count


def test_frozen_blocks_in_front_of_those_that_learn_train_alike(job):
    top = stage("top", epochs=2, unfreeze="last 2 blocks", learning_rate=1e-3)
    cached = trained(job(stages=[top], average="ema"))
    assert "features of block3" in cached.stages[0].features
    assert_same_training(cached, trained(job(stages=[top], average="ema", cache="off")))


def test_a_named_block_is_where_the_model_is_cut(job):
    named = stage(cache="block4", unfreeze="last 1 blocks")
    assert "features of block4" in trained(job(stages=[named])).stages[0].features


def test_balanced_sampling_and_class_weights_train_alike(job):
    section = {"stages": [stage()], "sampling": "balanced", "class_weights": "balanced"}
    assert_same_training(trained(job(**section)), trained(job(**section, cache="off")))


def test_stages_go_on_from_features_to_images_and_keep_their_momentum(job):
    stages = [stage(epochs=2), stage("all", unfreeze="all", learning_rate=1e-4, epochs=1)]
    cached = trained(job(stages=stages))
    assert_same_training(cached, trained(job(stages=stages, cache="off")))
    assert cached.stages[1].features == "the first layers are trained"


def test_a_stage_with_an_image_size_of_its_own_is_validated_at_the_final_one(job):
    def sized(cache):
        one = job(stages=[stage(image_size=48)], cache=cache)
        config = ModelConfig(backbone=PLAIN, weights="random")
        return replace(one, rebuild=lambda size: build_model(config, num_classes=3, image_size=size))

    assert_same_training(trained(sized("auto")), trained(sized("off")))


def test_a_later_run_computes_nothing_again(job, own_cache):
    trained(job(stages=[stage()]))
    (rows,) = own_cache.glob("features/*/rows.bin")
    before = rows.read_bytes(), rows.stat().st_mtime_ns
    trained(job(stages=[stage(learning_rate=1e-3, epochs=2)]))
    assert (rows.read_bytes(), rows.stat().st_mtime_ns) == before


def test_other_weights_have_features_of_their_own(job, own_cache):
    trained(job(stages=[stage()]))
    other = job(stages=[stage()])
    other.model.set_weights([weight * 1.01 for weight in other.model.get_weights()])
    trained(other)
    assert len(list(own_cache.glob("features/*"))) == 2


def test_a_corrupted_table_is_made_again(job, own_cache):
    first = trained(job(stages=[stage()]))
    (rows,) = own_cache.glob("features/*/rows.bin")
    rows.write_bytes(np.random.default_rng(0).bytes(rows.stat().st_size))
    assert_same_training(first, trained(job(stages=[stage()])), tolerance=1e-6)


def test_images_whose_hash_is_not_known_are_not_stored(job, own_cache):
    trained(job(stages=[stage()], hashes=False))
    assert not (own_cache / "features").exists()


def test_a_cache_folder_that_cannot_be_written_does_not_matter(job, uncached, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMAGETUNE_CACHE", str(tmp_path / "file"))
    assert find_cache_root() == Path(tmp_path / "file")
    assert_same_training(trained(job(stages=[stage()])), uncached)


def reason(job):
    return plan_features(job, job.config.stages[0], job.model).reason


def test_auto_says_why_it_leaves_a_stage_alone(job):
    top = stage(unfreeze="last 2 blocks")
    assert "augmented anew" in reason(job(stages=[top], augmentation="light"))
    assert "mixup blends" in reason(job(stages=[stage()], mix="mixup"))
    assert reason(job(stages=[stage(cache="off")])) == "train.cache is off"
    assert reason(job(stages=[stage(unfreeze="all")])) == "the first layers are trained"
    assert "no epoch would see" in reason(job(stages=[stage(unfreeze="last 2 blocks", epochs=1)]))


def test_auto_takes_few_copies_of_an_augmented_head_stage(job):
    plan = plan_features((one := job(stages=[stage(epochs=20)], augmentation="light")), one.config.stages[0], one.model)
    assert plan.copies == AUTO_COPIES


def test_features_too_large_for_the_budget_are_not_kept(job, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    one = job(stages=[stage()])
    tight = one.images.config.model_copy(update={"cache_gib": 1e-6})
    one = replace(one, images=replace(one.images, config=tight))
    assert "more than data.cache_gib" in reason(one)


def test_features_that_do_not_fit_into_memory_are_read_from_their_table(job, uncached, monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=0))
    assert_same_training(trained(job(stages=[stage()])), uncached)


def test_a_stop_is_heard_while_features_are_computed(job):
    one = job(stages=[stage()])
    one.listener.features_done = lambda event: setattr(one.stop, "signal_number", 15)
    with pytest.raises(StoppedError):
        train(one)
    assert one.listener.epochs == []


def test_an_image_that_vanished_is_named(job, tmp_path):
    one = job(stages=[stage()])
    folder = tmp_path / "copy"
    shutil.copytree(Path(one.images.config.source), folder)
    moved = [
        replace(record, path=record.path.replace(one.images.config.source, str(folder))) for record in one.images.train
    ]
    Path(moved[0].path).unlink()
    hashes = {record.path: hashlib.sha256(record.path.encode()).hexdigest() for record in moved}
    one = replace(one, images=replace(one.images, train=moved, hashes=hashes))
    with pytest.raises(BadImageError) as error:
        train(one)
    assert error.value.where == moved[0].path


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "mobilenet_v3_small", "inception_v3", "convnext_tiny"])
@pytest.mark.slow
def test_both_halves_together_predict_as_the_whole_model(name):
    backbone = get_backbone(name)
    size = max(backbone.min_size, 64)
    model = build_model(ModelConfig(backbone=name, weights="random"), num_classes=3, image_size=(size, size))
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    whole = model.predict_on_batch(images)
    boundaries = list_frozen_boundaries(model, backbone, "none")
    for boundary in boundaries:
        halves = split_model_at(model, backbone, boundary)
        features = np.asarray(halves.lower.predict_on_batch(images))
        assert features.shape[1:] == halves.feature_shape
        assert halves.predictions.predict_on_batch(features) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("name", [PLAIN, TINY])  # without and with BatchNorm to fold
def test_what_is_asked_for_features_goes_with_the_model(job, name):
    training = job(backbone=name, stages=[stage(epochs=1)])
    halves = plan_features(training, training.config.stages[0], training.model).halves
    lower = halves.lower
    train(training)
    gone = weakref.ref(lower)
    del training, halves, lower
    for _ in range(3):  # what is kept with the model goes one collection later
        gc.collect()
    assert gone() is None

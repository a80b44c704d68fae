import time

import keras
import numpy as np
import pytest
from tiny_backbones import PLAIN

from imagetune.data.audit.audit import audit_catalog
from imagetune.data.loading.timing import LoadingTimes, PipelineTimes, Timing
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import StoppedError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.feature_cache.plan import plan_features
from imagetune.training.measure.forecast import Costs
from imagetune.training.measure.timing import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    StageTimes,
    find_smaller_size,
    time_calls,
    time_forward,
    time_stage,
    time_transfer,
)
from imagetune.training.measure.whatif import Measured, combine_stage_costs, find_changes
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.job import TrainingImages, TrainingJob, build_objective, build_targets
from imagetune.training.setup.stopping import StopRequest

SIZE = 48
HEAD = {"name": "head", "epochs": 6, "learning_rate": "auto"}
TOP = {"name": "top", "epochs": 4, "unfreeze": "last 1 blocks", "learning_rate": 1e-3}
LOADING = LoadingTimes(Timing((1e-4,)), Timing((2e-3,)), Timing((1e-3,)), (("Affine", Timing((8e-4,))),))


@pytest.fixture
def job(images, tmp_path, tiny):
    """Return a training job of a small random network on the coloured images."""
    config = ModelConfig(backbone=PLAIN, weights="random")

    def make(*stages, data_section=None, **train_section):
        data = DataConfig.model_validate(
            {"source": str(images), "image_size": SIZE, "workers": 0, "cache": "off", **(data_section or {})}
        )
        catalog = read_catalog(data)
        splits = split_catalog(catalog, audit_catalog(catalog, data), data, seed=3)
        keras.utils.set_random_seed(3)
        return TrainingJob(
            model=build_model(config, num_classes=3, image_size=(SIZE, SIZE)),
            backbone=get_backbone(config.backbone),
            config=TrainConfig.model_validate({"batch_size": 8, "stages": stages, **train_section}),
            images=TrainingImages(splits.train, splits.val, splits.class_names, data),
            folder=tmp_path / "checkpoints",
            seed=3,
            listener=SilentListener(),
            stop=StopRequest(),
            rebuild=lambda size: build_model(config, num_classes=3, image_size=size),
        )

    return make


def timed(job, number=0):
    return time_stage(job, job.config.stages[number], objective=build_objective(job), targets=build_targets(job))


def made_up(job, one):
    """What a stage costs, without measuring: 10 ms a step, 8 of them in the frozen part where there is one."""
    plan = plan_features(job, one, job.model)
    frozen = None if one.unfreeze == "all" else Timing((8e-3,))
    cached = None if plan.halves is None else Timing((1e-4,))
    return StageTimes(plan, Timing((10e-3,)), 1.0, frozen=frozen, cached_step=cached)


def measured(job, cache="off", times=None):
    times = tuple(times or (made_up(job, one) for one in job.config.stages))
    common = {"pipeline": PipelineTimes(0.0, Timing((1.7e-3,))), "kept": None, "transfer": 1e-5}
    common |= {"decoded": cache != "off", "first_pass": True}
    stages = tuple(
        combine_stage_costs(config, one, LOADING, **common)
        for config, one in zip(job.config.stages, times, strict=True)
    )
    costs = Costs(stages, len(job.images.train), len(job.images.val), 1e-3, cores=2, shared=True)
    return Measured(costs, times, (LOADING,) * len(times), cache)


def changes_of(job, **more):
    return {change.setting: change for change in find_changes(job, measured(job, **more))}


def test_the_first_call_is_distinguished_from_the_others():
    calls = []

    def work():
        time.sleep(0.002 if calls else 0.05)
        calls.append(1)

    timing, first = time_calls(work, images=2)
    assert len(calls) == 1 + MAX_ROUNDS
    assert 0.001 <= timing.min_seconds <= timing.seconds < 0.01
    assert 0.02 < first < 0.06


def test_slow_calls_are_repeated_less_often(monkeypatch):
    from imagetune.training.measure import timing

    monkeypatch.setattr(timing, "CALL_SECONDS", 0.01)
    assert len(time_calls(lambda: time.sleep(0.02), 1)[0].rounds) == MIN_ROUNDS
    monkeypatch.setattr(timing, "SLOW_SECONDS", 0.01)
    assert len(time_calls(lambda: time.sleep(0.02), 1)[0].rounds) == 1


@pytest.mark.parametrize(
    ("size", "least", "found"),
    [
        ((224, 224), 32, (192, 192)),
        ((192, 192), 32, (160, 160)),
        ((224, 160), 32, (192, 128)),
        ((32, 32), 32, None),
        ((64, 64), 64, None),
        ((96, 96), 75, None),
    ],
)
def test_a_smaller_size_is_one_that_the_backbone_takes(size, least, found):
    assert find_smaller_size(size, least) == found


def test_a_smaller_size_is_a_multiple_of_the_backbones_step():
    assert find_smaller_size((224, 224), 28, 14) == (182, 182)
    assert find_smaller_size((224, 224), 32, 16) == find_smaller_size((224, 224), 32)


def test_a_head_stage_is_timed_with_its_frozen_part_and_from_features(job):
    found = timed(job(HEAD))
    assert (found.boundary, found.plan.halves.boundary, found.plan.copies) == ("pooling", "pooling", 4)
    # The quickest rounds: others wait for whatever else the machine does.
    assert min(found.cached_step.rounds) < min(found.step.rounds)
    assert found.frozen.seconds < 2 * found.step.seconds
    assert found.compile_seconds > 0
    assert found.prepare is None


def test_a_stage_with_frozen_blocks_is_timed_up_to_them(job):
    one = job(TOP, data_section={"augmentation": "strong"}, mix="mixup")
    found = timed(one)
    assert found.boundary and found.boundary != "pooling"
    assert found.frozen is not None and found.cached_step is None and found.plan.halves is None
    assert found.prepare.seconds > 0


def test_forward_and_transfer_are_timed(job):
    one = job(HEAD)
    images = np.zeros((8, SIZE, SIZE, 3), np.uint8)
    forward, first = time_forward(one, one.model, images)
    assert 0 < forward.seconds < first
    assert 0 < time_transfer(images).seconds < forward.seconds


def test_a_signal_ends_the_measurements(job):
    one = job(HEAD)
    one.stop.signal_number = 2
    with pytest.raises(StoppedError):
        time_forward(one, one.model, np.zeros((2, SIZE, SIZE, 3), np.uint8))


def test_caches_that_are_off_are_proposed_with_what_they_would_save(job):
    found = changes_of(job(HEAD, cache="off"))
    assert {"data.cache", "train.cache", "data.workers", "data.augmentation"} <= set(found)
    assert found["data.augmentation"].value == "without Affine"
    assert found["data.cache"].same_result
    (stage,) = found["train.cache"].costs.stages
    assert (stage.copies, stage.cached_step is not None) == (4, True)
    assert "features of pooling" in found["train.cache"].reason


def test_caching_features_of_images_that_are_not_augmented_changes_no_result(job):
    found = changes_of(job(HEAD, cache="off", data_section={"augmentation": "none"}))
    assert found["train.cache"].same_result


def test_copies_are_proposed_where_they_would_let_a_stage_keep_features(job):
    found = changes_of(
        job(TOP, {**TOP, "name": "more", "epochs": 8}, data_section={"augmentation": "strong"}), cache="auto"
    )
    assert "data.cache" not in found and "train.cache" not in found
    augmented_copies = found["train.augmented_copies"]
    assert (augmented_copies.value, augmented_copies.same_result) == (4, False)


def test_fewer_copies_are_proposed_where_features_are_kept(job):
    assert changes_of(job(HEAD), cache="auto")["train.augmented_copies"].value == 2


@pytest.mark.slow
def test_a_smaller_image_is_measured(job, monkeypatch):
    from imagetune.training.measure import whatif

    monkeypatch.setattr(whatif, "find_smaller_size", lambda *_: (32, 32))
    one = job({**TOP, "unfreeze": "all", "epochs": 400})
    times = timed(one)
    assert (times.boundary, times.frozen, times.cached_step) == ("", None, None)
    everything = measured(one, cache="auto", times=(times,))
    found = {change.setting: change for change in find_changes(one, everything)}
    image = found["data.image_size"]
    assert (image.value, image.same_result) == (32, False)
    assert "of what it takes at 48 x 48" in image.reason


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA is a choice with TensorFlow alone")
def test_xla_that_is_on_is_compared_with_none(job):
    found = changes_of(job(HEAD, jit_compile=True, cache="off"))
    assert found["train.jit_compile"].value == "auto"
    assert found["train.jit_compile"].reason.startswith("without XLA the step takes ")

import sys

import pytest

from imagetune.core.messages import say_nothing
from imagetune.errors import ImagetuneError, RecipeError, ResourceError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.measure import batch_size
from imagetune.training.measure.batch_size import (
    Load,
    find_batch_size,
    find_demanding_stages,
    find_largest_fitting,
    fits_in_memory,
    list_candidate_sizes,
    measure_available_memory,
    set_batch_size,
)

MODEL = ModelConfig(backbone="mobilenet_v3_small", weights="random")
DATA = DataConfig(source="nowhere", image_size=32)


def load(stages=(("head", "none"), ("all", "all")), size=None, **train):
    stages = [{"name": name, "unfreeze": unfreeze, "epochs": 1, "learning_rate": "auto"} for name, unfreeze in stages]
    config = TrainConfig.model_validate({"batch_size": "auto", "stages": stages, **train})
    return Load(model=MODEL, train=config, data=DATA, outputs=3, batch_size=size)


def worker(script):
    """Return the command of a process that replies in the place of the real one; `size` is the requested batch size."""
    start = "import json, os, signal, sys, time; size = json.load(sys.stdin)['batch_size']; "
    return [sys.executable, "-c", start + script]


def test_the_whole_step_and_powers_of_two_that_divide_it_are_tried():
    assert list_candidate_sizes(32) == [32, 16, 8, 4, 2, 1]
    assert list_candidate_sizes(48) == [48, 16, 8, 4, 2, 1]
    assert list_candidate_sizes(33) == [33, 1]


def test_the_largest_size_that_fits_is_taken_and_no_smaller_one_tried():
    tried = []
    assert find_largest_fitting([32, 16, 8, 4], lambda size: tried.append(size) or size <= 16) == 16
    assert tried == [32, 16]


def test_when_nothing_fits_the_error_says_what_to_do():
    with pytest.raises(ResourceError, match="not even 1; set a smaller data.image_size") as caught:
        find_largest_fitting([2, 1], lambda size: False)
    assert caught.value.exit_code == 5
    assert "image_size" in caught.value.hint


def test_the_step_stays_what_the_recipe_asked_for():
    said = []
    dies = "size > 8 and os.kill(os.getpid(), signal.SIGKILL); print(json.dumps({'peak_bytes': 1}))"
    train = find_batch_size(load(effective_batch=32), say=lambda *message: said.append(message), worker=worker(dies))
    assert (train.pass_size, train.step_size, train.accumulation) == (8, 32, 4)
    assert said[0] == ("batch", "trying 32 images at a time")
    assert said[-1] == ("batch", "8 of 32 fits; 4 passes a step")


def test_without_an_effective_batch_a_step_has_32_images():
    train = find_batch_size(load(), say=say_nothing, worker=worker("print(json.dumps({'peak_bytes': 1}))"))
    assert (train.pass_size, train.step_size) == (32, 32)


@pytest.mark.parametrize(
    "prediction",
    ["print(json.dumps({'out_of_memory': True}))", "os.abort()", "print(json.dumps({'peak_bytes': 1 << 60}))"],
)
def test_running_out_of_memory_means_that_it_does_not_fit(prediction):
    assert not fits_in_memory(load(size=8), worker=worker(prediction))


def test_a_process_that_holds_too_much_is_ended(monkeypatch):
    monkeypatch.setattr(batch_size, "MEMORY_SHARE", 1e-9)
    assert not fits_in_memory(load(size=8), worker=worker("time.sleep(600)"))


def test_another_failure_is_reported_as_itself():
    with pytest.raises(ImagetuneError, match="ZeroDivisionError: division by zero"):
        fits_in_memory(load(size=8), worker=worker("1 / 0"))


def test_a_mistake_in_the_recipe_stays_one():
    prediction = "print(json.dumps({'recipe_error': ['no block', 'unfreeze', 'ask for fewer']}))"
    with pytest.raises(RecipeError, match="unfreeze: no block; ask for fewer"):
        fits_in_memory(load(size=8), worker=worker(prediction))


def test_a_load_travels_as_it_is():
    given = load(size=8, mix="mixup", class_weights={"red": 2.0}, early_stopping={"patience": 2})
    assert Load.model_validate_json(given.model_dump_json()) == given


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 400000\ninactive_file 200000\n")
    assert measure_available_memory(tmp_path) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert measure_available_memory(tmp_path) > 10_000_000


def test_only_stages_that_no_other_outdoes_are_tried():
    model = build_model(MODEL, num_classes=3, image_size=(32, 32))
    backbone = get_backbone(MODEL.backbone)

    def demanding(stages):
        train = TrainConfig.model_validate({"stages": stages})
        return [stage.name for stage in find_demanding_stages(model, backbone, train.stages, DATA)]

    def stage(name, unfreeze, **values):
        return {"name": name, "unfreeze": unfreeze, "epochs": 1, "learning_rate": 1e-3, **values}

    growing = [stage("head", "none"), stage("top", "last 2 blocks"), stage("rest", "all")]
    assert demanding(growing) == ["rest"]
    assert demanding([stage("small", "all", image_size=32), stage("large", "last 1 blocks", image_size=64)]) == [
        "small",
        "large",
    ]


def test_the_settled_section_is_a_valid_one():
    settled = set_batch_size(load().train, 8)
    assert TrainConfig.model_validate_json(settled.model_dump_json()) == settled


@pytest.mark.slow
def test_a_real_process_trains_two_steps():
    said = []
    train = find_batch_size(load(effective_batch=8, optimizer="sgd"), say=lambda *message: said.append(message))
    assert train.pass_size == 8
    with pytest.raises(RecipeError, match="no block or layer 'roof'"):
        fits_in_memory(load(stages=[("roof", "roof")], size=1))

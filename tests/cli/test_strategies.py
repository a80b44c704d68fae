"""Strategies put together in recipes, by the command line."""

import json

import pytest

STAGES = (
    "train.stages=[{name: head, epochs: 1, learning_rate: 1e-2, augmentation: strong, schedule: one_cycle},"
    " {name: all, unfreeze: last 1 blocks, epochs: 1, learning_rate: 1e-3, layer_decay: 0.5, image_size: 48}]"
)


@pytest.mark.slow
def test_a_run_may_learn_from_another_one_and_use_everything_at_once(imagetune, recipe, fitted):
    _, teacher = fitted
    strategies = ["train.mix=both", "train.average=ema", "train.label_smoothing=0.1", "train.optimizer.clip_norm=1.0"]
    strategies += ["train.sampling=square_root", "train.loss=focal", "train.regularisation.l2_sp=0.01"]
    strategies += [
        "model.backbone=efficientnet_lite0",
        "model.drop_path=0.1",
        "evaluate.tta=[horizontal_flip]",
        f"train.teacher={teacher}",
    ]
    words = [word for strategy in [STAGES, *strategies] for word in ("-o", strategy)]
    outcome = imagetune("fit", recipe, "--run-dir", "pupil", *words)
    assert outcome.code == 0, outcome.err
    assert imagetune("verify", "pupil").code == 0
    stages = [json.loads(line) for line in (recipe.parent / "pupil/stages.jsonl").read_text().splitlines()]
    assert [stage["name"] for stage in stages] == ["head", "all"]
    rates = list(stages[1]["learning_rates"].values())
    assert rates[0] == pytest.approx(rates[1] / 2)
    again = imagetune("evaluate", "pupil", "--json")
    tested = json.loads((recipe.parent / "pupil/evaluation.json").read_text())["splits"]["test"]["metrics"]
    assert again.json()["splits"]["test"]["metrics"]["log_loss"]["value"] == pytest.approx(
        tested["log_loss"]["value"], abs=1e-5
    )


def test_a_teacher_with_other_classes_is_refused(imagetune, recipe, fitted):
    _, teacher = fitted
    words = ["-o", f"train.teacher={teacher}", "-o", "data.classes=[red, blue]"]
    outcome = imagetune("fit", recipe, "--run-dir", "pupil", *words)
    assert outcome.code == 2
    assert "train.teacher.run: the teacher has other classes: green is only on one side" in outcome.err
    assert not (recipe.parent / "pupil").exists()


def test_a_teacher_that_is_no_run_is_refused(imagetune, recipe, workplace):
    outcome = imagetune("fit", recipe, "--run-dir", "pupil", "-o", "train.teacher=nowhere")
    assert outcome.code not in (0, 70)
    assert "nowhere" in outcome.err
    assert not (workplace / "pupil").exists()


@pytest.mark.parametrize("key", ["train.teacher", "model.weights"])
def test_a_run_that_has_learned_from_the_test_images_is_refused(imagetune, recipe, fitted, key):
    _, other = fitted
    words = ["-o", f"{key}={other}", "-o", "seed=4"]  # another seed, another split
    outcome = imagetune("fit", recipe, "--run-dir", "pupil", *words)
    assert outcome.code == 3
    assert f"{key}: {other} was trained on" in outcome.err
    assert "test images" in outcome.err
    assert not (recipe.parent / "pupil").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_goes_with_rates_a_block_and_clipping(imagetune, recipe, precision):
    words = [STAGES, f"train.precision={precision}", "train.optimizer.clip_norm=1.0", "train.average=ema"]
    outcome = imagetune("fit", recipe, "--run-dir", "half", *(each for word in words for each in ("-o", word)))
    assert outcome.code == 0, outcome.err

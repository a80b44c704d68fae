import io
from dataclasses import replace

from rich.console import Console

from imagetune.cli.render import progress
from imagetune.cli.render.progress import Screen
from imagetune.training.setup.events import EpochRecord, StageJudged, StageStarted, StepDone

STAGE = StageStarted(
    name="head",
    index=0,
    stages=2,
    epochs=8,
    first_epoch=1,
    steps_per_epoch=9,
    learning_rates={"head": 1e-3},
    trainable_parameters=10_248,
    parameters=3_423_272,
    found_learning_rate=0.00312,
    features="features of pooling",
)


def test_messages_go_to_standard_error_and_their_texts_begin_in_one_column(capsys):
    screen = Screen()
    screen.say("data", "30 images [bold]")
    screen.stage_started(STAGE)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "data        30 images [bold]",
        "stage 1/2   head: 10,248 of 3,423,272 parameters are trainable, up to 8 epochs of 9 steps",
        "features    features of pooling",
        "range test  learning rate 0.0031",
    ]


def test_an_epoch_is_a_line_with_both_splits(capsys):
    train, val = {"loss": 0.5, "accuracy": 0.75, "f1": 0.7, "recall": 0.1}, {"loss": 0.25, "accuracy": 1.0}
    Screen().epoch_done(EpochRecord("head", 3, 27, train, val, 2.5e-3, 123.4))
    assert capsys.readouterr().err == (
        "epoch   3   train loss 0.5000 accuracy 0.750 F1 0.700  |  val loss 0.2500 accuracy 1.000"
        "  |  learning rate 2.50e-03  123 images/s\n"
    )


def test_without_validation_images_only_training_is_shown(capsys):
    Screen().epoch_done(EpochRecord("head", 12, 27, {"loss": 1.0}, {}, 1e-3, 8.0))
    assert capsys.readouterr().err == "epoch  12   train loss 1.0000  |  learning rate 1.00e-03  8 images/s\n"


def test_on_a_terminal_of_80_columns_an_epoch_is_one_line(monkeypatch):
    values = {"loss": 0.5, "accuracy": 0.75, "precision": 0.7, "recall": 0.7, "f1": 0.7}
    screen = Screen()
    screen.console = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False)
    screen.epoch_done(EpochRecord("top", 12, 27, values, values, 2.5e-3, 123.4))
    (line,) = screen.console.file.getvalue().splitlines()
    assert line == "epoch  12   train loss 0.5000 accuracy 0.750  val loss 0.5000 accuracy 0.750"


def test_a_long_stage_says_early_how_long_it_takes_and_in_the_end_why_it_is_dropped(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    screen = Screen()
    screen.stage_started(STAGE)
    # The first step compiles for half a minute, each of the others takes two seconds.
    for step in range(1, 6):
        now = 28.0 + 2 * step
        screen.step_done(StepDone("head", 1, step, 9, 0.5))
    now = 200.0
    screen.stage_judged(StageJudged("head", kept=False, gain=None))
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "time        head: about 2 min for up to 8 epochs, without validation",
        "stage       head is dropped: no epoch of it was better than the best one before; it took 3 min",
    ]


def test_a_run_that_is_gone_on_with_within_an_epoch_counts_the_steps_that_are_left(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    screen = Screen()
    screen.stage_started(replace(STAGE, epochs=1, steps_per_epoch=100))
    for step in range(71, 76):
        now += 20.0
        screen.step_done(StepDone("head", 1, step, 100, 0.5))
    # 30 steps of 20 seconds, not 100.
    assert "time        head: about 10 min for up to 1 epoch" in capsys.readouterr().err


def test_a_quick_stage_says_nothing_of_its_time(capsys):
    screen = Screen()
    screen.stage_started(STAGE)
    for step in range(1, 6):
        screen.step_done(StepDone("head", 1, step, 9, 0.5))
    assert "time" not in capsys.readouterr().err

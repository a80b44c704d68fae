import sys

import keras
import numpy as np
import pytest
from PIL import Image

from benchmarks.quality.peers import one_cycle, probe, soup
from benchmarks.quality.peers.loop import Settings, Step, Trainer, count_updates
from benchmarks.quality.scoring import read_peer, score


@pytest.fixture
def blocks(tmp_path):
    """Three splits of plain red and plain blue images."""
    for split in ("train", "val", "test"):
        for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            (tmp_path / split / name).mkdir(parents=True)
            for n in range(6):
                shade = tuple(max(0, value - 10 * n) for value in colour)
                Image.new("RGB", (32, 32), shade).save(tmp_path / split / name / f"{n}.png")
    return tmp_path


def test_the_probe_writes_predictions_that_tell_red_from_blue(blocks, monkeypatch):
    file = blocks / "predictions.npz"
    monkeypatch.setattr(sys, "argv", ["probe", str(blocks), "--size", "32", "--predictions", str(file)])
    probe.main()
    assert score(*read_peer(file))["accuracy"] == 1.0


def test_one_cycle_rises_to_its_top_and_falls_to_nothing_while_momentum_goes_the_other_way():
    steps = list(one_cycle.cycle(11, 1e-3, rise=0.3, divisor=5.0))
    assert steps[0].rate == pytest.approx(2e-4) and steps[0].beta == pytest.approx(0.95)
    assert steps[3].rate == max(step.rate for step in steps) == pytest.approx(1e-3)
    assert steps[3].beta == pytest.approx(0.85)
    assert steps[-1].rate == pytest.approx(1e-8) and steps[-1].beta == pytest.approx(0.95)


def test_warm_up_takes_a_tenth_and_the_cosine_the_rest():
    rates = [step.rate for step in soup.warm_up_and_cosine(20)]
    assert rates[:3] == pytest.approx([5e-5, 1e-4, 1e-4])
    assert rates[11] == pytest.approx(5e-5)
    assert rates[-1] < 1e-6


def test_an_update_is_adamw_with_the_share_of_each_variable():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, kernel_initializer="ones")])
    kernel, bias = model.trainable_variables
    trainer = Trainer(model, {bias.path: 0.1}, keras.Sequential([keras.layers.Identity()]), Settings(batch=4))
    images = np.ones((4, 1), np.uint8), np.zeros(4, np.int64)
    trainer.train(images, iter([Step(0.01, 0.9)]), updates=1)
    # The first step of Adam has the size of the rate, whatever the gradient.
    np.testing.assert_allclose(kernel.numpy(), [[1.01, 0.99]], atol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [0.001, -0.001], atol=1e-6)


def test_updates_of_an_epoch_are_full_batches_and_at_least_one():
    assert count_updates(300, Settings(batch=32, passes=4)) == 2
    assert count_updates(10, Settings(batch=64)) == 1

"""The same tests on the JAX backend, each in a process of its own: Keras chooses its backend once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def outcome_on_jax(*words):
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    return subprocess.run(command, check=False, cwd=HERE.parents[1], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_losses_optimizers_and_a_whole_training_work_on_jax():
    mixture = f"{HERE / 'test_strategies.py'}::test_mixing_sampling_focal_loss_and_clipping_go_together"
    outcome = outcome_on_jax(
        HERE / "objectives" / "test_losses.py", HERE / "optimization" / "test_optimizer.py", mixture
    )
    assert outcome.returncode == 0, outcome.stdout


@pytest.mark.slow
def test_every_strategy_works_on_jax():
    outcome = outcome_on_jax(
        HERE / "test_strategies.py", HERE / "loop" / "test_fit.py", HERE / "measure" / "test_lr_find.py"
    )
    assert outcome.returncode == 0, outcome.stdout

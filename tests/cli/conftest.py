"""The command line, called as a user would, in a working folder of its own."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

RECIPE = """\
name: colours
seed: 3
data:
  source: {source}
  image_size: 32
  workers: 0
model: {{backbone: efficientnet_lite0, weights: random}}
train:
  batch_size: 16
  stages:
    - {{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-2}}
    - {{name: top, unfreeze: last 1 blocks, epochs: 1, learning_rate: 1e-3}}
evaluate: {{bootstrap_samples: 100}}
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working folder, without the tracking variables of whoever runs the tests."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def imagetune(capsys):
    """Run a command line in this process, which has Keras loaded already."""
    from imagetune.cli.main import run

    def call(*arguments):
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def start(workplace):
    """Start a command line in a process of its own, for signals and imports."""

    def start(*arguments, **keywords):
        command = [sys.executable, "-m", "imagetune", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=workplace, **pipes, **keywords)

    return start


@pytest.fixture
def recipe(workplace, pictures):
    """A small recipe on the coloured pictures."""
    path = workplace / "colours.yaml"
    path.write_text(RECIPE.format(source=pictures), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def fitted(tmp_path_factory, pictures):
    """A finished run, made once by `imagetune fit` in a process of its own: (working folder, run folder)."""
    place = tmp_path_factory.mktemp("fitted")
    (place / "colours.yaml").write_text(RECIPE.format(source=pictures), encoding="utf-8")
    command = [sys.executable, "-m", "imagetune", "fit", "colours.yaml", "--run-dir", "run"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place, Path(place / "run")

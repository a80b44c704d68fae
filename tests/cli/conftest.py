"""The command line, called as a user would, in a working folder of its own."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
from colours import RECIPE
from once import made_once
from tiny_backbones import TINY, tiny_backbones

TRACKING = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")


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
    for name in TRACKING:
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
def recipe(workplace, images, empty_store, tiny):
    """A small recipe on the coloured images, beside a store that is ready to use."""
    return _prepared(workplace, images, empty_store)


@pytest.fixture
def real_recipe(workplace, images, empty_store):
    """The same of a real backbone, for trainings in processes of their own, which know no other."""
    path = _prepared(workplace, images, empty_store)
    path.write_text(path.read_text().replace(f"backbone: {TINY}", "backbone: efficientnet_lite0"), encoding="utf-8")
    return path


def _prepared(folder, images, store):
    shutil.copyfile(store, folder / "mlflow.db")
    (folder / "colours.yaml").write_text(RECIPE.format(source=images), encoding="utf-8")
    return folder / "colours.yaml"


@pytest.fixture(scope="session")
def _fitted(tmp_path_factory, images, empty_store):
    def make(folder):
        from imagetune.cli.main import run

        _prepared(folder, images, empty_store)
        tracking = {name: os.environ.pop(name) for name in TRACKING if name in os.environ}
        with contextlib.chdir(folder), tiny_backbones():
            assert run(["fit", "colours.yaml", "--run-dir", "run"]) == 0
        os.environ.update(tracking)

    return made_once(tmp_path_factory, "fitted", make)


@pytest.fixture
def fitted(_fitted, tiny):
    """A finished run, made once for all tests by `imagetune fit`: (working folder, run folder)."""
    return _fitted, _fitted / "run"

"""Mistakes that need no Keras are said before it is imported, which takes seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from imagetune.commands.before_keras import check_run_inputs, check_runs
from imagetune.errors import DataError, ModelFileError

CODE = """
import sys
from imagetune.cli.main import run
for words, code in {words!r}:
    assert run(words) == code, words
heavy = {{"keras", "tensorflow", "mlflow"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture
def finished(tmp_path: Path) -> str:
    """A folder that looks like a finished run's."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "manifest.json").write_text("{}")
    return str(tmp_path / "run")


def test_unknown_runs_and_images_are_refused_before_keras_is_imported(finished: str, tmp_path: Path) -> None:
    """In a process of its own; the one of the tests has Keras."""
    words = [
        (["predict", "nosuch", "a.png"], 9),
        (["predict", finished, "nosuch.png"], 3),
        (["explain", finished, "nosuch.png", "--out", "out"], 3),
        (["evaluate", "nosuch"], 9),
        (["evaluate", finished, "--with", "nosuch"], 9),
        (["evaluate", finished, "--data", "nosuch"], 3),
        (["compare", finished, "nosuch"], 9),
        (["soup", finished, "nosuch"], 9),
        (["export", "nosuch", "--format", "litert", "--out", "out"], 9),
        (["export", finished, "--format", "saved_model", "--quantize", "int8", "--out", "out"], 2),
    ]
    command = [sys.executable, "-c", CODE.format(words=words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_what_is_there_passes_as_do_addresses_and_patterns(finished: str) -> None:
    check_run_inputs([finished, "runs:/0123", "models:/name/1"], [finished, "*.png"])


def test_a_run_that_ended_early_passes_only_where_no_model_is_needed(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "failed", "stage": "head", "epoch": 1, "error": "x"}')
    check_runs([str(tmp_path)], trained=False)
    with pytest.raises(ModelFileError, match="has no trained model"):
        check_runs([str(tmp_path)])


def test_a_missing_image_is_named_with_what_lies_beside_it(finished: str) -> None:
    with pytest.raises(DataError, match=r"mode: no such file"):
        check_run_inputs([finished], [f"{finished}/mode"])

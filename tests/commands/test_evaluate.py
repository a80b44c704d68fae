"""Which test is run: of one run, of an ensemble, or on corrupted images."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetune.commands import evaluate as command
from imagetune.errors import RecipeError
from imagetune.recipe.sections.evaluate import Requirement

REQUIRED = Requirement(metric="accuracy", value=0.9)


@pytest.fixture
def called(monkeypatch):
    """The tests that were run, with their arguments; none takes time."""
    calls = []
    monkeypatch.setattr(command, "open_run", lambda run: (run, "model"))
    monkeypatch.setattr(command, "evaluate_model", lambda *words, **more: calls.append(("one", words, more)) or {})
    monkeypatch.setattr(command, "evaluate_ensemble", lambda *words, **more: calls.append(("many", words, more)) or {})
    monkeypatch.setattr(command, "evaluate_robustness", lambda *words, **_: calls.append(("corrupted", words)) or {})
    return calls


def test_one_run_is_tested_alone_and_several_as_an_ensemble(called):
    settings = {"data": Path("images"), "require": [REQUIRED], "seen": "allow"}
    command.evaluate("runs/a", **settings)
    command.evaluate("runs/a", others=["runs/b"], **settings)
    assert called == [("one", ("runs/a", "model"), settings), ("many", (("runs/a", "runs/b"),), settings)]


def test_robustness_is_tested_on_the_runs_own_images_alone(called):
    command.evaluate("runs/a", robustness=True)
    assert called == [("corrupted", ("runs/a",))]
    for more in ({"others": ["runs/b"]}, {"data": Path("images")}, {"require": [REQUIRED]}):
        with pytest.raises(RecipeError, match="leave --data, --with and --require out"):
            command.evaluate("runs/a", robustness=True, **more)
    assert len(called) == 1

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from imagetune.commands.requirements import check_requirements, enforce_requirements
from imagetune.errors import GateError


def test_a_run_that_misses_nothing_passes():
    enforce_requirements(SimpleNamespace(folder=Path("runs/a"), missed=()))


def test_every_missed_requirement_is_reported_with_its_run():
    with pytest.raises(GateError) as caught:
        enforce_requirements(SimpleNamespace(folder=Path("runs/a"), missed=("accuracy 0.5", "f1 0.4")))
    assert (caught.value.where, caught.value.what) == ("runs/a", "accuracy 0.5; f1 0.4")
    assert "the run is complete" in caught.value.hint


def test_a_document_is_judged_by_its_requirements():
    check_requirements({}, where="runs/a")
    requirements = [{"met": True, "message": "fine"}, {"met": False, "message": "f1 is 0.4, less than 0.9"}]
    with pytest.raises(GateError, match="runs/a: f1 is 0.4, less than 0.9"):
        check_requirements({"requirements": requirements}, where="runs/a")

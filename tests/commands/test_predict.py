"""Which model predicts, which decision rules are refused, and what is an error, without any model."""

from __future__ import annotations

import pytest
from image_predictions import READ, UNREADABLE

from imagetune.commands import predict as command
from imagetune.errors import DataError, RecipeError
from imagetune.evaluation.image_predictions import DecisionRules


def test_one_run_predicts_alone_and_several_as_an_ensemble(found):
    assert list(command.predict("runs/a", ["a.png", "b.png"])) == [READ, UNREADABLE]
    assert list(command.predict("runs/a", ["a.png", "b.png"], others=["runs/b"])) == [UNREADABLE, READ]


@pytest.mark.parametrize(
    ("rules", "others", "message"),
    [
        (DecisionRules(operating_point=True, min_cost=True), (), "exclude each other; give one of them"),
        (DecisionRules(calibrated=True), ("runs/b",), "need a single run; leave it out"),
        (DecisionRules(sets=True), ("runs/b",), "need a single run"),
    ],
)
def test_rules_that_cannot_be_applied_are_refused_before_a_model_is_loaded(found, monkeypatch, rules, others, message):
    monkeypatch.setattr(command, "open_members", lambda _: pytest.fail("a run was opened"))
    with pytest.raises(RecipeError, match=message):
        command.predict("runs/a", ["a.png"], rules, others=others)


def test_images_of_which_none_can_be_read_are_an_error_after_their_predictions(found):
    found[:] = [UNREADABLE]
    predictions = command.predict("runs/a", ["b.png"])
    assert next(predictions) == UNREADABLE
    with pytest.raises(DataError, match="none of the images can be read"):
        next(predictions)

import signal

import pytest

from imagetune import errors


def test_a_message_says_where_what_and_what_to_do():
    error = errors.RecipeError("unknown key", where="a.yaml:3:1 data.siz", hint="did you mean 'size'?")
    assert error.line() == "error[recipe] a.yaml:3:1 data.siz: unknown key; did you mean 'size'?"


def test_a_message_is_one_line_whatever_it_quotes():
    assert "\n" not in errors.DataError("first\nsecond", where="a\nb").line()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.RecipeError, 2),
        (errors.DataError, 3),
        (errors.BadImageError, 3),
        (errors.DivergedError, 4),
        (errors.ResourceError, 5),
        (errors.WeightsError, 5),
        (errors.CheckpointError, 6),
        (errors.TrackingError, 7),
        (errors.SearchError, 8),
        (errors.ModelFileError, 9),
        (errors.GateError, 10),
        (errors.ImagetuneError, 70),
    ],
)
def test_exit_codes_are_the_public_contract(kind, code):
    assert kind("x").exit_code == code


def test_a_stop_exits_with_128_plus_the_signal():
    assert errors.StoppedError(signal.SIGINT).exit_code == 130
    assert errors.StoppedError(signal.SIGTERM).exit_code == 143


def test_every_mistake_of_a_recipe_gets_a_line():
    first = errors.RecipeError("one").with_also((errors.RecipeError("two"), errors.RecipeError("three")))
    assert first.lines() == ["error[recipe] one", "error[recipe] two", "error[recipe] three"]

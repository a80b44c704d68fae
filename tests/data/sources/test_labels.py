from __future__ import annotations

import pytest

from imagetune.data.sources.labels import (
    LabelRule,
    build_label_rule,
    canonicalize_labels,
    format_exact_number,
    join_labels,
    order_classes,
    parse_number,
    require_plain,
    split_labels,
)
from imagetune.data.sources.records import Record
from imagetune.errors import DataError, RecipeError
from imagetune.recipe.sections.data import DataConfig


def config(**values: object) -> DataConfig:
    return DataConfig.model_validate({"source": "/data", **values})


def canonical(label: str, **values: object) -> str:
    return canonicalize_labels([Record("/data/1.png", label)], config(**values))[0].label


def test_labels_of_an_image_are_sorted_and_each_is_named_once() -> None:
    assert split_labels(" dog; cat ;dog;", ";") == ("cat", "dog")
    assert split_labels("", ";") == ()
    assert join_labels(["dog", "cat", "dog"], "|") == "cat|dog"
    assert canonical("dog; cat", task="multi_label") == "cat;dog"


def test_labels_that_are_no_classes_are_left_out_but_not_their_images() -> None:
    assert canonical("dog;cat;emu", task="multi_label", classes=["cat", "dog"]) == "cat;dog"
    assert canonical("emu", task="multi_label", classes=["cat", "dog"]) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [("3", "3"), ("3.0", "3"), (" 2.50 ", "2.5"), ("-1e-3", "-0.001"), ("1e30", "1e+30"), ("0.1", "0.1")],
)
def test_a_number_has_one_text(text: str, told: str) -> None:
    assert canonical(text, task="regression") == told
    assert float(told) == float(text)


@pytest.mark.parametrize("text", ["old", "", "nan", "inf", "1e39", "1,5"])
def test_what_is_no_finite_number_is_refused_with_its_image(text: str) -> None:
    assert parse_number(text) is None
    with pytest.raises(DataError, match="not a finite number") as caught:
        canonical(text, task="regression")
    assert caught.value.where == "/data/1.png"


def test_a_rule_names_the_classes_of_a_label() -> None:
    assert build_label_rule(config()).names("a;b") == ("a;b",)
    assert build_label_rule(config(task="multi_label", label_separator="|")).names("b|a") == ("a", "b")
    assert build_label_rule(config(task="regression")).names("3") == ("value",)
    assert build_label_rule(config(task="regression", columns={"label": "age"})).names("3") == ("age",)


def test_images_with_several_labels_count_for_each() -> None:
    counts = LabelRule("multi_label").counts(["a;b", "b", "", "b"])
    assert counts == {"a": 1, "b": 3}


def test_labels_are_reported_as_people_read_them() -> None:
    assert LabelRule("multi_label").describe("a;b") == "a, b"
    assert LabelRule("multi_label").describe("") == "none"
    assert LabelRule().describe("a;b") == "a;b"
    assert LabelRule("regression").describe("160.191666") == "160.192"


def test_ordered_classes_need_an_order_unless_they_are_numbers() -> None:
    assert order_classes(["10", "9", "2.5"], config(task="ordinal")) == ("2.5", "9", "10")
    assert order_classes(["10", "9"], config()) == ("10", "9")
    with pytest.raises(RecipeError, match="'mild'") as caught:
        order_classes(["1", "mild", "severe"], config(task="ordinal"))
    assert caught.value.where == "data.classes"


def test_a_label_with_the_separator_is_refused() -> None:
    require_plain("cat", ";", where="x")
    with pytest.raises(DataError, match="separator"):
        require_plain("cat;dog", ";", where="x")


def test_number_texts_give_the_number_back() -> None:
    for value in (0.1, 1 / 3, 12345678901234567890.0, -7.0, 5e-324):
        assert float(format_exact_number(value)) == value

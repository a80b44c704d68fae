import math
import time

import pytest

from imagetune.errors import RecipeError
from imagetune.recipe.document import parse_document, resolve_scalar


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("0x1F", 31),
        ("true", True),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("00123", "00123"),
        ("0", 0),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("-.inf", -math.inf),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    resolved = resolve_scalar(text)
    assert resolved == value
    assert type(resolved) is type(value)


def test_a_quoted_number_is_text():
    assert parse_document('a: "5"', name="r").root == {"a": "5"}


def test_every_key_and_item_has_its_place():
    document = parse_document("a:\n  b: [1,\n      2]\n", name="r.yaml")
    assert document.where(("a", "b")) == "r.yaml:2:3"
    assert document.where(("a", "b", 1)) == "r.yaml:3:7"
    assert document.where(("a", "b", 7, "c")) == "r.yaml:2:3"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: 2\na: 3\n", "r:3:1", "key 'a' appears twice, first in line 1"),
        ("a: !!python/object/apply:os.system ['touch /tmp/owned']", "r:1:4", "tag 'tag:yaml.org,2002:python/object"),
        ("", "r:1:1", "is empty"),
        ("# nothing\n", "r:1:1", "is empty"),
        ("- a\n- b\n", "r:1:1", "the root is a list"),
        ("hello", "r:1:1", "the root is the single value 'hello'"),
        ("a: 1\n---\nb: 2\n", "r:2:1", "a second document starts here"),
        ("a:\n\tb: 1\n", "r:2:1", "cannot start any token"),
        ("a: [1, 2", "r:2:1", "expected ',' or ']'"),
        ("a: *x", "r:1:4", "alias *x has no anchor"),
        ("? [a]\n: 1", "r:1:3", "a key must be text"),
    ],
)
def test_what_is_no_recipe_is_refused_with_its_place(text, where, what):
    with pytest.raises(RecipeError) as caught:
        parse_document(text, name="r")
    assert caught.value.where == where
    assert what in caught.value.what


def test_tabs_get_a_hint():
    with pytest.raises(RecipeError, match="indent with spaces"):
        parse_document("a:\n\tb: 1\n", name="r")


def test_anchors_and_aliases_work():
    assert parse_document("a: &x {k: [1]}\nb: *x\n", name="r").root["b"] == {"k": [1]}


@pytest.mark.parametrize(
    "bomb",
    [
        "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "a: " + "[" * 100_000,
        "".join(f"{' ' * depth}k:\n" for depth in range(2000)),
        "a: &a [*a]",
        "x: '" + "a" * 2_000_000 + "'",
        f"a0: &a0 {'[' * 30}x{']' * 30}\n"
        + "".join(f"a{i}: &a{i} {'[' * 30}*a{i - 1}{']' * 30}\n" for i in range(1, 30)),
    ],
    ids=["aliases", "flow", "block", "self", "long", "aliases that nest"],
)
def test_a_bomb_is_refused_at_once(bomb):
    began = time.perf_counter()
    with pytest.raises(RecipeError):
        parse_document(bomb, name="r")
    assert time.perf_counter() - began < 2


def test_a_value_at_an_alias_is_one_of_its_own():
    root = parse_document("a: &x {k: [1]}\nb: *x\n", name="r").root
    root["b"]["k"].append(2)
    assert root["a"] == {"k": [1]}


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ('a: 1\nb: "x\\0y"', "r:2:4", r"'x\x00y' has '\x00'"),
        ('a: 1\n"b\\0": 1', "r:2:1", r"'b\x00' has '\x00'"),
        ("a: 1\nb: x\0y", "r:2:5", r"has '\x00'"),
        ("a: 1\nb: x\ud800y", "r:2:5", r"has '\ud800'"),
        ("a: 1\n  # \x1b[31m\n", "r:2:5", r"the character '\x1b' can't stand in YAML"),
    ],
)
def test_a_text_that_no_file_can_hold_is_refused_with_its_place(text, where, what):
    with pytest.raises(RecipeError) as caught:
        parse_document(text, name="r")
    assert caught.value.where == where
    assert what in caught.value.what


@pytest.mark.parametrize("text", ["0x" + "f" * 5000, "0o" + "7" * 5000])
def test_a_number_of_5000_digits_stays_text(text):
    # Python refuses to write such a number out, so that even a message about it failed.
    assert resolve_scalar(text) == text
    assert resolve_scalar("1" * 5000) == math.inf

import pytest

from imagetune.core.text import (
    find_similar_name,
    format_count,
    format_duration,
    format_list,
    format_set_difference,
    shorten_middle,
    suggest_name,
)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (3 * 3600, "3 h 0 min")])
def test_durations_read_well(seconds, text):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("word", "found"), [("kat", "cat"), ("ResNet 50", "resnet_50"), ("CAT", "cat"), ("zzz", None), ("", None)]
)
def test_a_similar_name_is_found_whatever_its_case_and_separators(word, found):
    assert find_similar_name(word, ["cat", "resnet_50", "dog"]) == found
    assert suggest_name(word, ["cat", "resnet_50", "dog"]) == (f"did you mean {found!r}?" if found else "")


def test_names_of_nothing_but_separators_are_distinguished():
    assert find_similar_name("--", ["__", "--"]) == "--"


def test_lists_are_cut_with_the_number_left_out():
    assert format_list("abc") == "a, b, c"
    assert format_list((str(number) for number in range(2000)), most=2) == "0, 1 and 1,998 more"
    assert format_list([]) == ""


def test_counts_have_their_noun_in_number():
    assert [format_count(count, "class", "classes") for count in (0, 1, 2000)] == [
        "0 classes",
        "1 class",
        "2,000 classes",
    ]
    assert format_count(2, "image") == "2 images"


def test_names_that_differ_from_those_wanted_are_reported_both_ways():
    assert format_set_difference("abc", "bcd") == "lacks a and has d besides"
    assert format_set_difference("abc", "ab") == "lacks c"
    assert format_set_difference("ab", "ba") == ""


def test_long_texts_are_shortened_in_their_middle():
    short = shorten_middle("a" * 150 + "b" * 150, 100)
    assert len(short) == 100 and short.startswith("aaa") and short.endswith("bbb") and "..." in short
    assert shorten_middle("as it is") == "as it is"

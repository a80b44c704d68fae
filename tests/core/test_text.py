import html
import json
import re

import pytest
from markdown_it import MarkdownIt

from imagetune.core.text import (
    CONTROLS,
    escape_controls,
    escape_markdown,
    find_similar_name,
    format_code,
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\u001b[2J"),
        ("a\tb\r\n\x00\x7f\x9b", r"a\tb\r\n\u0000\u007f\u009b"),
        ("a\u202egnp", r"a\u202egnp"),
        ("\U000e0041", r"\udb40\udc41"),
        ("Käse 猫 👩‍🚀", "Käse 猫 👩‍🚀"),
    ],
)
def test_control_characters_become_visible_in_the_escapes_of_json(text, shown):
    assert escape_controls(text) == shown
    assert json.loads(f'"{shown}"') == text


HOSTILE = (
    "[log in](http://evil.example)",
    "![x](http://evil.example/track.png)",
    "![x][1]\n\n[1]: http://evil.example",
    "<img src=http://evil.example>",
    "<http://evil.example>",
    "&lt;b&gt; &#91;x](http://evil.example)",
    "a | b | c",
    "# heading",
    "> quotation",
    "- item",
    "1. item",
    "---",
    "===",
    "`code` and ``more``",
    "**bold** _thin_ ~~gone~~ __init__",
    "\\[x](http://evil.example)",
    "\x1b]8;;http://evil.example\x07link",
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("around", ["{}", "- {}", "> {}", "**{}**", "| a |\n| --- |\n| {} |", "# {}"])
def test_a_text_of_a_stranger_is_only_text_in_markdown(text, around):
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(around.format(escape_markdown(text)))
    own = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(around.format("x"))
    # The renderer adds nothing to what stands around it, and shows the text as it is.
    assert re.findall("<[^>]*>", page) == re.findall("<[^>]*>", own)
    told = html.unescape(re.sub("<[^>]*>", "", page))
    assert escape_controls(text.replace("\n", " ")) in " ".join(told.split("\n")).replace("  ", " ") or "\n\n" in text
    assert not CONTROLS.search(page.replace("\n", ""))


def test_addresses_are_no_links_where_a_renderer_looks_for_bare_ones():
    assert escape_markdown("see http://evil.example and www.evil.example") == (
        r"see http\://evil.example and www\.evil.example"
    )


@pytest.mark.parametrize("text", ["efficientnet_lite0", "-0.5", "12.5%", "R&D", "a-b", "last 3 blocks", "C#", "x > y"])
def test_ordinary_words_stay_readable_in_markdown(text):
    assert escape_markdown(text) == text


@pytest.mark.parametrize("text", ["train.epochs", "a`b", "``", "a|b"])
def test_code_in_markdown_holds_any_text(text):
    page = MarkdownIt("commonmark").enable("table").render(f"| a |\n| --- |\n| {format_code(text)} |")
    assert html.unescape(re.search("<code>(.*?)</code>", page)[1]) == text

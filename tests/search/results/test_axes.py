from itertools import pairwise

import pytest

from imagetune.search.results.axes import Axis, format_value, read_axes, shorten_names

RATE = Axis("rate", "log_uniform", 1e-5, 1e-1)
DECAY = Axis("decay", "uniform", 0.5, 1.0)
BATCH = Axis("batch", "int", 8, 64)
DEPTH = Axis("depth", "choice", values=("none", 1, True, None, ("a", "b")))


def test_a_range_has_its_values_on_its_own_scale():
    assert RATE.place(1e-3) == pytest.approx(0.5)
    assert DECAY.place(0.75) == pytest.approx(0.5)
    assert BATCH.place(36) == pytest.approx(0.5)
    assert [axis.place(axis.low) for axis in (RATE, DECAY, BATCH)] == [0, 0, 0]
    assert RATE.value(RATE.place(3e-4)) == pytest.approx(3e-4)


@pytest.mark.parametrize("value", [0.2, 1e-9, "auto", None, True])
def test_what_a_range_does_not_offer_has_no_place(value):
    assert RATE.place(value) is None


def test_a_choice_distinguishes_1_from_true_and_none_from_the_word():
    assert [DEPTH.index(value) for value in ("none", 1, True, None, ["a", "b"])] == [0, 1, 2, 3, 4]
    assert DEPTH.index(1.0) is None
    assert DEPTH.place(True) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "axis", [RATE, DECAY, BATCH, Axis("wide", "log_uniform", 1e-12, 1e3), Axis("two", "int", 1, 2)]
)
def test_ticks_stand_on_the_axis_in_order_with_both_ends(axis):
    places = [place for place, _ in axis.ticks()]
    assert places == sorted(set(places))
    assert (places[0], places[-1]) == (0, 1)
    assert all(later - earlier > 0.03 for earlier, later in pairwise(places))


def test_a_name_is_the_shortest_that_distinguishes_it_from_the_others():
    names = ["train.stages[0].learning_rate", "train.stages[1].learning_rate", "train.stages[1].unfreeze", "seed"]
    assert list(shorten_names(names, ["head", "top"]).values()) == [
        "head.learning_rate",
        "top.learning_rate",
        "unfreeze",
        "seed",
    ]
    assert shorten_names(["a.b", "b"]) == {"a.b": "a.b", "b": "b"}


def test_search_json_gives_the_axes_whatever_else_it_says():
    spaces = {
        "rate": {"search": "log_uniform", "low": 1e-4, "high": 0.1, "default": None, "when": {}},
        "depth": {"search": "choice", "values": ["none", {"name": "all"}], "default": None},
    }
    rate, depth = read_axes({"spaces": spaces, "seed": 1})
    assert (rate.kind, rate.low, rate.high) == ("log_uniform", 1e-4, 0.1)
    assert depth.index({"name": "all"}) == 1


def test_values_read_well():
    assert [format_value(value) for value in (1e-5, 0.123456, 32, None, True, "x")] == [
        "1e-5",
        "0.123",
        "32",
        "none",
        "true",
        "x",
    ]
    assert len(format_value("long " * 100)) == 40


def test_a_section_reads_as_its_words_and_its_numbers_with_their_keys():
    assert format_value({"pooling": "max"}) == "max"
    assert format_value({"backbone": "vgg16", "head": {"hidden": [16]}}) == "vgg16, head hidden [16]"
    assert format_value({"dropout": 0.1}) == "dropout 0.1"
    assert format_value({"name": "sgd", "momentum": 0.95}) == "sgd, momentum 0.95"
    assert format_value({"hidden": [32], "dropout": 0.3}) == "hidden [32], dropout 0.3"


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-1), (1e-12, 1e6), (3e-4, 1e-2)])
def test_a_wide_logarithmic_axis_has_few_ticks(low, high):
    places = [place for place, _ in Axis("rate", "log_uniform", low, high).ticks()]
    assert 3 <= len(places) <= 8
    assert places == sorted(places)
    assert min(after - before for before, after in pairwise(places)) > 0.1

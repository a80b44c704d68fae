import pytest

from imagetune.recipe.unfreeze import Unfreeze, parse_unfreeze


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("none", Unfreeze()),
        ("all", Unfreeze(everything=True)),
        ("last 3 blocks", Unfreeze(last_blocks=3)),
        ("last block", Unfreeze(last_blocks=1)),
        ("last 25%", Unfreeze(last_fraction=0.25)),
        ("block5", Unfreeze(names=("block5",))),
        ("conv5_*", Unfreeze(names=("conv5_*",))),
        (("block4", "block5"), Unfreeze(names=("block4", "block5"))),
    ],
)
def test_each_spelling_is_read(text, parsed):
    assert parse_unfreeze(text) == parsed


@pytest.mark.parametrize("text", ["last 0 blocks", "last 0%", "last 120%", "last three blocks", "", "a b"])
def test_what_makes_no_sense_is_refused(text):
    with pytest.raises(ValueError, match=r"expected|trains nothing|outside"):
        parse_unfreeze(text)


def test_only_none_is_nothing():
    assert parse_unfreeze("none").nothing
    assert not parse_unfreeze("last block").nothing

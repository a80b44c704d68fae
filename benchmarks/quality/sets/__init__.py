"""The image sets, as data: each built from what packages carry, half of them for choosing defaults, half for judging.

The halves were assigned before any result was seen: the shipped drawings are for choosing, as earlier defaults were
chosen on them; the others, in the order of their kind and then their number of images, go to one half and the other in
turn.
"""

from __future__ import annotations

from benchmarks.quality.sets.build import ImageSet
from benchmarks.quality.sets.drawings import (
    collect_constellations,
    collect_portraits,
    collect_shipped,
    collect_topics,
    collect_words,
)
from benchmarks.quality.sets.icons import collect_emoji, collect_gendered_emoji, collect_icons, collect_textures
from benchmarks.quality.sets.photographs import collect_deep_sky, collect_furniture, collect_landscapes

SETS = (
    ImageSet("clipart", "drawings", "choose", (), "public domain", "subject", collect_shipped, 417, 8),
    ImageSet("constellations", "drawings", "choose", ("stellarium-data",), "GPL-2+, CC", "culture", collect_constellations, 663, 20, without=("japanese_moon_stations",)),
    ImageSet("words", "drawings", "judge", ("pysiogame",), "public domain", "kind of word", collect_words, 585, 12),
    ImageSet("topics", "drawings", "judge", ("openclipart-png",), "public domain", "topic", collect_topics, 2424, 38, most=250),
    ImageSet("portraits", "paintings", "judge", ("wesnoth-1.16-data",), "GPL-2+", "people", collect_portraits, 229, 11, least=7),
    ImageSet("landscapes", "photographs", "choose", ("endless-sky-data",), "CC-BY-SA-4.0, public domain", "landscape", collect_landscapes, 223, 18, least=6),
    ImageSet("deep-sky", "photographs", "judge", ("stellarium-data",), "CC, public domain", "type of object", collect_deep_sky, 441, 6),
    ImageSet("furniture", "renderings", "choose", ("sweethome3d-furniture",), "CC-BY-3.0, CC0", "room", collect_furniture, 672, 10),
    ImageSet("icons", "icons", "judge", ("oxygen-icon-theme",), "LGPL-3+", "what it stands for", collect_icons, 366, 6),
    ImageSet("emoji", "icons", "choose", ("fonts-noto-color-emoji", "unicode-data"), "OFL-1.1", "subgroup", collect_emoji, 1310, 67, most=60, without=("keycap",)),
    ImageSet("gender", "icons", "choose", ("fonts-noto-color-emoji", "unicode-data"), "OFL-1.1", "woman or man", collect_gendered_emoji, 150, 2),
    ImageSet("textures", "textures", "judge", ("ufoai-textures",), "GPL-2+, CC", "material", collect_textures, 807, 19),
)  # fmt: skip


def find_set(name: str) -> ImageSet:
    """Return the set of a name."""
    return next(images for images in SETS if images.name == name)

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
    ImageSet(
        name="clipart",
        kind="drawings",
        half="choose",
        packages=(),
        licence="public domain",
        task="subject",
        collect=collect_shipped,
        images=417,
        classes=8,
    ),
    ImageSet(
        name="constellations",
        kind="drawings",
        half="choose",
        packages=("stellarium-data",),
        licence="GPL-2+ and others",
        task="culture",
        collect=collect_constellations,
        images=663,
        classes=20,
        without=("japanese_moon_stations",),
    ),
    ImageSet(
        name="words",
        kind="drawings",
        half="judge",
        packages=("pysiogame",),
        licence="CC-BY-SA",
        task="kind of word",
        collect=collect_words,
        images=585,
        classes=12,
    ),
    ImageSet(
        name="topics",
        kind="drawings",
        half="judge",
        packages=("openclipart-png",),
        licence="public domain",
        task="topic",
        collect=collect_topics,
        images=2424,
        classes=38,
        most=250,
    ),
    ImageSet(
        name="portraits",
        kind="paintings",
        half="judge",
        packages=("wesnoth-1.16-data",),
        licence="GPL-2+",
        task="people",
        collect=collect_portraits,
        images=229,
        classes=11,
        least=7,
    ),
    ImageSet(
        name="landscapes",
        kind="photographs",
        half="choose",
        packages=("endless-sky-data",),
        licence="CC-BY-SA, public domain",
        task="landscape",
        collect=collect_landscapes,
        images=223,
        classes=18,
        least=6,
    ),
    ImageSet(
        name="deep-sky",
        kind="photographs",
        half="judge",
        packages=("stellarium-data",),
        licence="GPL-2+ and others",
        task="type of object",
        collect=collect_deep_sky,
        images=441,
        classes=6,
    ),
    ImageSet(
        name="furniture",
        kind="renderings",
        half="choose",
        packages=("sweethome3d-furniture",),
        licence="CC-BY-3.0, CC0",
        task="room",
        collect=collect_furniture,
        images=672,
        classes=10,
    ),
    ImageSet(
        name="icons",
        kind="icons",
        half="judge",
        packages=("oxygen-icon-theme",),
        licence="LGPL-3+",
        task="what it stands for",
        collect=collect_icons,
        images=366,
        classes=6,
    ),
    ImageSet(
        name="emoji",
        kind="icons",
        half="choose",
        packages=("fonts-noto-color-emoji", "unicode-data"),
        licence="OFL-1.1",
        task="subgroup",
        collect=collect_emoji,
        images=1310,
        classes=67,
        most=60,
        without=("keycap",),
    ),
    ImageSet(
        name="gender",
        kind="icons",
        half="choose",
        packages=("fonts-noto-color-emoji", "unicode-data"),
        licence="OFL-1.1",
        task="woman or man",
        collect=collect_gendered_emoji,
        images=150,
        classes=2,
    ),
    ImageSet(
        name="textures",
        kind="textures",
        half="judge",
        packages=("ufoai-textures",),
        licence="GPL-2+ and others",
        task="material",
        collect=collect_textures,
        images=807,
        classes=19,
    ),
)


def find_set(name: str) -> ImageSet:
    """Return the set of a name."""
    return next(images for images in SETS if images.name == name)

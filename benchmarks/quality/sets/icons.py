"""Sets of icons and of textures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from zipfile import ZipFile

from fontTools.ttLib import TTFont
from PIL import Image

from benchmarks.quality.sets.build import SourceImage, read_file_image
from benchmarks.quality.sets.drawings import Find
from benchmarks.quality.sets.photographs import read_zipped

# How texture names of one material begin; other names are of single things.
MATERIALS = {
    "box": "box", "bricks": "bricks", "carpet": "carpet", "concrete": "concrete", "desert": "desert", "dirt": "dirt",
    "door": "door", "floor": "floor", "grass": "grass", "landsc": "landscape", "metal": "metal", "metall": "metal",
    "rock": "rock", "roof": "roof", "street": "street", "tiles": "tiles", "wall": "wall",
    "wallpaper": "wallpaper", "window": "window", "wood": "wood",
}  # fmt: skip
# Maps of normals, glow and shine, that belong to the texture of the same name.
NO_COLOURS = re.compile(r"_(nm|gm|sm|rm)$")
SKIN_TONES = range(0x1F3FB, 0x1F400)
SIZE_MARK, MALE, FEMALE = 0xFE0F, 0x2642, 0x2640
MAN, WOMAN = 0x1F468, 0x1F469
SEVERAL_PEOPLE = ("family", "kiss", "couple")


def collect_icons(find: Find) -> Iterator[SourceImage]:
    """Yield desktop icons by what they stand for: applications, places, devices, file types."""
    root = find("oxygen-icon-theme") / "usr/share/icons/oxygen/base/256x256"
    for path in sorted(root.glob("*/*.png")):
        if not path.is_symlink():
            yield read_file_image(path, path.parent.name)


def collect_emoji(find: Find) -> Iterator[SourceImage]:
    """Yield emoji by their Unicode subgroup, without those of a skin tone or a gender."""
    pixels = read_glyphs(find)
    for codes, subgroup, _ in _read_emoji(find):
        gendered = {MALE, FEMALE, MAN, WOMAN} & set(codes)
        if codes in pixels and not gendered and not set(codes) & set(SKIN_TONES):
            name = "-".join(f"{code:x}" for code in codes)
            yield SourceImage(name, subgroup, _bytes_reader(pixels[codes]))


def collect_gendered_emoji(find: Find) -> Iterator[SourceImage]:
    """Yield emoji of women and men at the same work or sport, a group for each work."""
    pixels = read_glyphs(find)
    for codes, _, name in _read_emoji(find):
        genders = {"man": {MALE, MAN} & set(codes), "woman": {FEMALE, WOMAN} & set(codes)}
        labels = [label for label, found in genders.items() if found]
        alone = len(labels) == 1 and len(codes) > 1 and not name.startswith(SEVERAL_PEOPLE)
        if codes in pixels and alone and not set(codes) & set(SKIN_TONES):
            work = re.sub(r"\b(wo)?m[ae]n\b", "", name).strip()
            yield SourceImage(f"{work}-{labels[0]}", labels[0], _bytes_reader(pixels[codes]), work)


def collect_textures(find: Find) -> Iterator[SourceImage]:
    """Yield textures of a game by the material that their name begins with; variants of one number are a group."""
    archive = find("ufoai-textures") / "usr/share/games/ufoai/base/0textures.pk3"
    with ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".jpg", ".png", ".tga")))
    for name in names:
        folder, stem = name.split("/")[-2], name.split("/")[-1].rsplit(".", 1)[0]
        label = MATERIALS.get(re.split(r"[0-9_]", stem)[0])
        if label and not NO_COLOURS.search(stem):
            numbered = re.match(r".*?\d+", stem)
            yield SourceImage(f"{folder}-{stem}", label, read_zipped(archive, name), numbered[0] if numbered else stem)


def read_glyphs(find: Find) -> dict[tuple[int, ...], bytes]:
    """Return the PNG of each emoji of one or several characters in Noto's font."""
    font = TTFont(find("fonts-noto-color-emoji") / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", lazy=True)
    bitmaps = {name: glyph for strike in font["CBDT"].strikeData for name, glyph in strike.items()}
    names = dict(font.getBestCmap())
    found = {(code,): name for code, name in names.items()}
    codes = {name: code for code, name in names.items()}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in getattr(getattr(table, "ExtSubTable", table), "ligatures", {}).items():
                for ligature in ligatures:
                    parts = [first, *ligature.Component]
                    if all(part in codes for part in parts):
                        found[tuple(codes[part] for part in parts)] = ligature.LigGlyph
    return {key: bytes(bitmaps[name].imageData) for key, name in found.items() if name in bitmaps}


def _read_emoji(find: Find) -> Iterator[tuple[tuple[int, ...], str, str]]:
    """Yield the characters, the subgroup and the name of each emoji, as Unicode lists them."""
    subgroup = ""
    path = find("unicode-data") / "usr/share/unicode/emoji/emoji-test.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ").strip()
        elif found := re.match(r"([0-9A-F ]+); fully-qualified\s*# \S+ E[\d.]+ (.*)", line):
            codes = tuple(code for part in found[1].split() if (code := int(part, 16)) != SIZE_MARK)
            yield codes, subgroup, found[2]


def _bytes_reader(data: bytes) -> Callable[[], Image.Image]:
    return lambda: Image.open(BytesIO(data))

"""Sets of drawings and paintings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path

from benchmarks.quality.sets.build import SourceImage, read_file_image

Find = Callable[[str], Path]
# Folders of the Open Clip Art Library, less those that the shipped drawings are taken from.
TOPICS = (
    "animals/bugs", "animals/fish", "animals/dinosaurs", "buildings/homes", "computer/hardware",
    "education/books", "electronics/bulb", "food/beverages", "food/meats_and_eggs", "food/breads_and_carbs",
    "food/vegetables", "geography/astronomy", "people/stickmen", "people/bodypart", "plants/flowers",
    "plants/trees", "recreation/music", "recreation/sports", "recreation/party", "recreation/toys",
    "recreation/holiday", "recreation/religion", "recreation/games/cards", "recreation/games/chess",
    "shapes/arrows", "shapes/callouts", "special/patterns", "computer/icons", "computer/buttons",
    "signs_and_symbols/map_symbols", "signs_and_symbols/led", "signs_and_symbols/weather",
    "signs_and_symbols/clocks", "tools", "transportation/aiga-symbols", "transportation/roadsigns",
    "transportation/vehicles", "office",
)  # fmt: skip


def collect_shipped(_: Find) -> Iterator[SourceImage]:
    """Yield the drawings that imagetune ships, by their folder."""
    root = Path(str(resources.files("imagetune.shipped"))) / "clipart"
    yield from _by_folder(root, (folder.name for folder in root.iterdir() if folder.is_dir()))


def collect_topics(find: Find) -> Iterator[SourceImage]:
    """Yield clip art by the folder of its topic; drawings that are numbered variants of one are a group."""
    yield from _by_folder(find("openclipart-png") / "usr/share/openclipart/png", TOPICS)


def collect_words(find: Find) -> Iterator[SourceImage]:
    """Yield drawings of words that children learn, by the kind of word."""
    root = find("pysiogame") / "usr/share/games/pysiogame/res/images/art4apps"
    yield from _by_folder(root, (folder.name for folder in root.iterdir() if folder.is_dir()))


def collect_portraits(find: Find) -> Iterator[SourceImage]:
    """Yield painted portraits by the people that is painted; the versions of one figure are a group."""
    root = find("wesnoth-1.16-data") / "usr/share/games/wesnoth/1.16/data/core/images/portraits"
    yield from _by_folder(root, (folder.name for folder in root.iterdir() if folder.is_dir()))


def collect_constellations(find: Find) -> Iterator[SourceImage]:
    """Yield drawings of constellations by the culture whose they are."""
    root = find("stellarium-data") / "usr/share/stellarium/skycultures"
    yield from _by_folder(root, (folder.name for folder in root.iterdir() if folder.is_dir()))


def _by_folder(root: Path, folders: Iterable[str]) -> Iterator[SourceImage]:
    for folder in sorted(folders):
        for path in sorted(path for path in (root / folder).rglob("*") if path.suffix in {".png", ".jpg"}):
            label = folder.replace("/", "-")
            yield SourceImage(
                f"{label}-{path.stem}", label, read_file_image(path, label).read, f"{label}-{_stem(path)}"
            )


def _stem(path: Path) -> str:
    """Return the name without what tells the versions of one drawing apart: a number, or a ``+female``."""
    name = path.stem.split("+")[0]
    return name.rstrip("0123456789").rstrip("-_") or name

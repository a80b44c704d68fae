"""The audit against what a person sees in the shipped set (clipart_by_eye.json)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from imagetune.data.audit.audit import Audit, audit_catalog
from imagetune.data.duplicates.groups import find_components
from imagetune.data.sources.read import read_catalog
from imagetune.recipe.sections.data import DataConfig

CLIPART = Path(__file__).parents[3] / "recipes" / "clipart"
SEEN = json.loads((Path(__file__).parents[1] / "clipart_by_eye.json").read_text())


@pytest.fixture(scope="module")
def audit() -> Audit:
    config = DataConfig(source=str(CLIPART))
    return audit_catalog(read_catalog(config), config)


def found(audit: Audit, code: str) -> list[list[str]]:
    """The paths of a finding below the set, by group where it has groups."""
    (finding,) = [finding for finding in audit.findings if finding.code == code]
    groups = finding.groups or [finding.paths]
    return [[str(Path(path).relative_to(CLIPART)) for path in group] for group in groups]


def joined(duplicate_groups: Iterable[Iterable[str]]) -> dict[str, int]:
    """A number for each image, the same for all that the groups connect."""
    listed = [list(group) for group in duplicate_groups]
    names = sorted({name for group in listed for name in group})
    place = {name: at for at, name in enumerate(names)}
    pairs = [(place[group[0]], place[name]) for group in listed for name in group[1:]]
    return dict(zip(names, find_components(len(names), pairs), strict=True))


def links_kept(duplicate_groups: Iterable[Iterable[str]], other: dict[str, int]) -> tuple[int, int]:
    """How many of the links that hold the groups together the other grouping has, of how many.

    A group of n images has n - 1; each part that the other breaks it into costs one (Vilain et al., "A
    Model-Theoretic Coreference Scoring Scheme", 1995).
    """
    listed = [list(group) for group in duplicate_groups]
    parts = sum(len({other.get(name, name) for name in group}) for group in listed)
    every = sum(map(len, listed))
    return every - parts, every - len(listed)


def test_every_name_on_the_list_is_an_image_of_the_set():
    groups = [*SEEN["near_duplicates"], *SEEN["variants"]]
    names = {name for group in groups for name in group}
    for key in ("placeholders", "misfiled", "uncertain"):
        names |= set(SEEN[key])
    assert not [name for name in names if not (CLIPART / name).is_file()]
    assert not set(SEEN["misfiled"]) & set(SEEN["uncertain"])


def test_the_placeholders_are_found_and_nothing_else_is_called_one(audit):
    assert {name for group in found(audit, "placeholder") for name in group} == set(SEEN["placeholders"])


def test_near_duplicate_groups_are_found(audit):
    reported = found(audit, "near-duplicates")
    right, every = links_kept(SEEN["near_duplicates"], joined(reported))
    good, links = links_kept(reported, joined([*SEEN["near_duplicates"], *SEEN["variants"]]))
    assert right / every >= 0.85, f"recall {right}/{every}"
    assert good / links >= 0.95, f"precision {good}/{links}"


def test_no_sound_drawing_is_called_blank_dark_bright_blurred_or_odd(audit):
    codes = {"blank-image", "too-dark", "too-bright", "blurred", "odd-size", "odd-aspect"}
    assert not codes & {finding.code for finding in audit.findings}

"""The audit against faults that were planted: which of them it finds, and how often it cries wolf."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import planted
import pytest
from planted import CLASSES, NEAR, ODD, Planted, on_white, plant, scene
from sklearn.datasets import load_sample_images

from imagetune.data.audit.audit import Audit, audit_catalog
from imagetune.data.duplicates.groups import list_group_members
from imagetune.data.sources.read import read_catalog
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
CLIPART = Path(__file__).parents[3] / "recipes" / "clipart"
BY_EYE = json.loads((Path(__file__).parents[1] / "clipart_by_eye.json").read_text(encoding="utf-8"))
CODES = {
    "unreadable": "bad-image",
    "truncated": "bad-image",
    "wrong suffix": "wrong-suffix",
    "exact copy": "identical-images",
    "two labels": "conflict",
    "blank": "blank-image",
    "tiny": "odd-size",
    "dark": "too-dark",
    "blurred": "blurred",
}


def audited(config: DataConfig) -> tuple[list[str], Audit]:
    catalog = read_catalog(config)
    return [record.path for record in catalog.records], audit_catalog(catalog, config)


def recalls(found: Planted, paths: list[str], audit: Audit) -> dict[str, float]:
    """The share of each kind's faults that are named with the right code; of copies, beside their original."""
    named = {finding.code: set(finding.paths) for finding in audit.findings}
    group = dict(zip(paths, audit.duplicate_groups, strict=True))
    hits = {}
    for kind, faults in found.faults.items():
        if kind in NEAR:
            hits[kind] = [group[str(path)] == group[str(original)] for path, original in faults]
        else:
            code = named.get(CODES[kind], set())
            together = kind in ("exact copy", "two labels")
            hits[kind] = [str(path) in code and (not together or str(original) in code) for path, original in faults]
    return {kind: float(np.mean(found)) for kind, found in hits.items()}


def false_alarms(found: Planted, audit: Audit) -> dict[str, str]:
    """Sound images without a planted copy that a finding about single images or groups names, with its code."""
    touched = {str(original) for faults in found.faults.values() for _, original in faults}
    sound = {str(path) for path in found.clean} - touched
    codes = {*CODES.values(), "corrupt-image", "near-duplicates", "near-conflict", "placeholder", "too-bright"}
    codes |= {"odd-aspect", "many-frames"}
    named = [(path, finding.code) for finding in audit.findings if finding.code in codes for path in finding.paths]
    return {path: code for path, code in named if path in sound}


def reported(found: Planted, recall: dict[str, float], alarms: dict[str, str]) -> str:
    faults = sum(map(len, found.faults.values()))
    shares = ", ".join(f"{kind} {share:.3f}" for kind, share in recall.items())
    wrong = {Path(path).name: code for path, code in alarms.items()}
    return f"{faults} faults among {len(found.clean)} images: recall {shares}; {len(wrong)} false alarms: {wrong}"


def test_planted_faults_are_found(tmp_path: Path, config_for: ConfigFor) -> None:
    found = plant(tmp_path / "set", [scene(seed) for seed in range(120)], each=4, near=8)
    paths, audit = audited(config_for(found.root))
    recall, alarms = recalls(found, paths, audit), false_alarms(found, audit)
    words = reported(found, recall, alarms)
    assert all(recall[kind] == 1.0 for kind in ("unreadable", "truncated", "wrong suffix", "exact copy")), words
    assert recall["two labels"] == 1.0, words
    assert np.mean([recall[kind] for kind in NEAR]) >= 0.95, words
    assert np.mean([recall[kind] for kind in ODD]) >= 0.9, words
    assert len(alarms) <= 0.01 * len(found.clean), words


@pytest.mark.slow
def test_two_hundred_planted_faults_among_drawings_photographs_and_scenes(
    tmp_path: Path, config_for: ConfigFor
) -> None:
    grouped = {name for kind in ("near_duplicates", "variants") for group in BY_EYE[kind] for name in group}
    drawings = [path for path in sorted(CLIPART.rglob("*.png")) if str(path.relative_to(CLIPART)) not in grouped]
    clean = [on_white(path) for path in drawings]
    clean += [*load_sample_images().images, *(scene(seed) for seed in range(1000 - len(clean)))]
    found = plant(tmp_path / "set", clean, each=15, near=13)
    assert sum(map(len, found.faults.values())) == 200
    paths, audit = audited(config_for(found.root))
    recall, alarms = recalls(found, paths, audit), false_alarms(found, audit)
    words = reported(found, recall, alarms)
    print(words)
    assert all(recall[kind] == 1.0 for kind in ("unreadable", "truncated", "wrong suffix", "exact copy")), words
    assert recall["two labels"] == 1.0, words
    assert np.mean([recall[kind] for kind in NEAR]) >= 0.95, words
    assert np.mean([recall[kind] for kind in ODD]) >= 0.9, words
    assert len(alarms) <= 0.01 * len(found.clean), words


def pairs_of(duplicate_groups: list[list[str]]) -> set[tuple[str, str]]:
    return {pair for group in duplicate_groups for pair in combinations(sorted(group), 2)}


def test_near_duplicates_of_the_shipped_set_are_those_that_a_person_sees(config_for: ConfigFor) -> None:
    paths, audit = audited(config_for(CLIPART))
    names = [str(Path(path).relative_to(CLIPART)) for path in paths]
    duplicate_groups = [
        [names[at] for at in group] for group in list_group_members(audit.duplicate_groups) if len(group) > 1
    ]
    found = pairs_of(duplicate_groups)
    wanted = pairs_of(BY_EYE["near_duplicates"])
    right = wanted | pairs_of(BY_EYE["variants"])
    precision, recall = len(found & right) / len(found), len(found & wanted) / len(wanted)
    words = f"precision {precision:.3f}, recall {recall:.3f}, wrong: {sorted(found - right)}"
    print(words)
    assert precision >= 0.95, words
    assert recall >= 0.93, words
    assert sorted(BY_EYE["placeholders"]) in duplicate_groups


@pytest.mark.slow
def test_ten_thousand_images_take_minutes(tmp_path: Path, config_for: ConfigFor) -> None:
    rng = np.random.default_rng(0)
    for number in range(10_000):
        folder = tmp_path / "set" / CLASSES[number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        if number % 100 == 0:
            image = scene(int(rng.integers(0, 40)))
        else:
            light = planted.clouds(rng, 96, 128, 1.3) * rng.uniform(20, 50)
            image = np.clip(128 + light + rng.normal(0, 30, 3), 0, 255).astype(np.uint8)
        (folder / f"{number}.jpg").write_bytes(planted.encoded(image))
    started = time.perf_counter()
    paths, _ = audited(config_for(tmp_path / "set"))
    seconds = time.perf_counter() - started
    print(f"{len(paths)} images in {seconds:.0f} s")
    assert seconds < 300

from __future__ import annotations

from pathlib import Path

from imagetune.data.loading.preview import pick_records
from imagetune.data.sources.records import Record


def records(class_folders: Path) -> list[Record]:
    return [Record(str(path), path.parent.name) for path in sorted(class_folders.rglob("*.png"))]


def test_records_are_picked_turn_by_turn_from_each_class(class_folders: Path) -> None:
    shown = pick_records(records(class_folders), 7)
    assert [record.label for record in shown] == ["cat", "dog", "owl", "cat", "dog", "owl", "cat"]
    assert len(set(shown)) == 7
    assert pick_records([], 3) == ()

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from imagetune.data.augmentation import build_augmenter
from imagetune.data.decode import load_picture
from imagetune.data.preview import draw_contact_sheet, pick_records
from imagetune.data.sources.records import Record
from imagetune.errors import DataError
from imagetune.recipe.data import ImageSettings

IMAGE = ImageSettings(height=32, width=32)


def has(sheet: np.ndarray, cell: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(sheet, cell.shape)[:, :, 0]
    corners = np.all(sheet[: windows.shape[0], : windows.shape[1]] == cell[0, 0], axis=2)
    return any(np.array_equal(windows[row, column], cell) for row, column in zip(*np.nonzero(corners), strict=True))


def records(class_folders: Path) -> list[Record]:
    return [Record(str(path), path.parent.name) for path in sorted(class_folders.rglob("*.png"))]


def test_the_sheet_shows_originals_and_the_views_of_training(class_folders: Path) -> None:
    shown = pick_records(records(class_folders), 3)
    sheet = draw_contact_sheet(shown, image=IMAGE, augmentation="medium", seed=5, views=2, max_pixels=10**8)
    assert sheet.dtype == np.uint8
    augmenter = build_augmenter("medium", IMAGE)
    for index, record in enumerate(shown):
        picture = load_picture(record.path, IMAGE, max_pixels=10**8)
        # Pictures this small are drawn three times as large.
        for cell in (picture, augmenter(picture, seed=(5, 0, index)), augmenter(picture, seed=(5, 1, index))):
            assert has(sheet, cell.repeat(3, axis=0).repeat(3, axis=1))


def test_records_are_picked_turn_by_turn_from_each_class(class_folders: Path) -> None:
    shown = pick_records(records(class_folders), 7)
    assert [record.label for record in shown] == ["cat", "dog", "owl", "cat", "dog", "owl", "cat"]
    assert len(set(shown)) == 7
    assert pick_records([], 3) == ()


def test_bad_pictures_are_left_out_and_none_at_all_is_an_error(class_folders: Path) -> None:
    shown = [Record("/nowhere/1.png", "cat"), *records(class_folders)[:1]]
    options = {"image": IMAGE, "augmentation": [{"HorizontalFlip": None}], "seed": 0, "views": 0, "max_pixels": 10**8}
    assert draw_contact_sheet(shown, **options).ndim == 3
    with pytest.raises(DataError, match="there is no picture to preview"):
        draw_contact_sheet(shown[:1], **options)

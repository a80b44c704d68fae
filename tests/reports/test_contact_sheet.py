from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagetune.data.loading.augmentation import build_augmenter
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.preview import load_preview, pick_records
from imagetune.data.sources.records import Record
from imagetune.errors import DataError
from imagetune.recipe.sections.data import ImageSettings
from imagetune.reports.contact_sheet import draw_contact_sheet

IMAGE = ImageSettings(height=32, width=32)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Two classes of two images that are unlike each other."""
    for seed, name in enumerate(("cat/0", "cat/1", "owl/0", "owl/1")):
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8))
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(path)
    return tmp_path


def has(sheet: np.ndarray, cell: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(sheet, cell.shape)[:, :, 0]
    corners = np.all(sheet[: windows.shape[0], : windows.shape[1]] == cell[0, 0], axis=2)
    return any(np.array_equal(windows[row, column], cell) for row, column in zip(*np.nonzero(corners), strict=True))


def records(class_folders: Path) -> list[Record]:
    return [Record(str(path), path.parent.name) for path in sorted(class_folders.rglob("*.png"))]


def test_the_sheet_shows_originals_and_the_views_of_training(class_folders: Path) -> None:
    shown = pick_records(records(class_folders), 3)
    rows = load_preview(shown, settings=IMAGE, augmentation="medium", seed=5, copies=2, max_pixels=10**8)
    sheet = draw_contact_sheet(rows, settings=IMAGE, augmentation="medium")
    assert sheet.dtype == np.uint8
    augmenter = build_augmenter("medium", IMAGE)
    for index, record in enumerate(shown):
        image = load_image(record.path, IMAGE, max_pixels=10**8)
        # Images this small are drawn three times as large.
        for cell in (image, augmenter(image, seed=(5, 0, index)), augmenter(image, seed=(5, 1, index))):
            assert has(sheet, cell.repeat(3, axis=0).repeat(3, axis=1))


def test_bad_images_are_left_out_and_none_at_all_is_an_error(class_folders: Path) -> None:
    shown = [Record("/nowhere/1.png", "cat"), *records(class_folders)[:1]]
    options = {
        "settings": IMAGE,
        "augmentation": [{"HorizontalFlip": None}],
        "seed": 0,
        "copies": 0,
        "max_pixels": 10**8,
    }
    assert draw_contact_sheet(rows := load_preview(shown, **options), settings=IMAGE, augmentation="light").ndim == 3
    assert [row.label for row in rows] == [shown[1].label]
    with pytest.raises(DataError, match="no image can be previewed"):
        load_preview(shown[:1], **options)

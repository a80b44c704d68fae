from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imagetune.data.sources.read import read_catalog
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]


def image(folder: Path, name: str, content: object = None, *, text: str | None = None) -> None:
    """Write an empty image, which no catalog opens, and the JSON file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").touch()
    if text is not None or content is not None:
        (folder / f"{name}.json").write_text(json.dumps(content) if text is None else text, encoding="utf-8")


def labels(source: Path, config_for: ConfigFor, **values: object) -> dict[str, str]:
    catalog = read_catalog(config_for(source, **values))
    return {Path(record.path).name: record.label for record in catalog.records}


def test_several_labels_one_label_or_none(tmp_path: Path, config_for: ConfigFor) -> None:
    image(tmp_path, "a", {"labels": ["dog", "cat"], "reviewer": "kim"})
    image(tmp_path, "b", {"labels": []})
    image(tmp_path / "more", "c", {"label": "cat"})
    found = labels(tmp_path, config_for, task="multi_label")
    assert found == {"a.png": "cat;dog", "b.png": "", "c.png": "cat"}
    catalog = read_catalog(config_for(tmp_path, task="multi_label"))
    assert catalog.labels == ("cat", "dog")
    assert catalog.findings == ()


def test_numbers(tmp_path: Path, config_for: ConfigFor) -> None:
    image(tmp_path, "a", {"value": 3.0})
    image(tmp_path, "b", {"value": -1.25})
    assert labels(tmp_path, config_for, task="regression") == {"a.png": "3", "b.png": "-1.25"}


def test_one_class_an_image_where_there_are_no_class_folders(tmp_path: Path, config_for: ConfigFor) -> None:
    image(tmp_path, "a", {"label": "cat"})
    image(tmp_path, "b", {"label": "dog"})
    assert labels(tmp_path, config_for) == {"a.png": "cat", "b.png": "dog"}


def test_json_files_in_class_folders_are_other_tools(tmp_path: Path, config_for: ConfigFor) -> None:
    image(tmp_path / "cat", "a", {"label": "boat"})
    image(tmp_path / "dog", "b", {"label": "boat"})
    assert labels(tmp_path, config_for) == {"a.png": "cat", "b.png": "dog"}


def test_split_folders(tmp_path: Path, config_for: ConfigFor) -> None:
    image(tmp_path / "train", "a", {"value": 1})
    image(tmp_path / "test", "b", {"value": 2})
    catalog = read_catalog(config_for(tmp_path, task="regression"))
    assert {Path(record.path).name: record.split for record in catalog.records} == {"a.png": "train", "b.png": "test"}


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("multi_label", '{"labels": "cat"}', "list of class names"),
        ("multi_label", '{"labels": ["cat", 3]}', "list of class names"),
        ("multi_label", '{"labels": ["cat;dog"]}', "separator"),
        ("multi_label", '{"tags": []}', "has no 'labels'"),
        ("regression", '{"value": "3"}', "a number"),
        ("regression", '{"value": true}', "a number"),
        ("regression", '{"value": NaN}', "finite"),
        ("regression", '{"value": 1' + "0" * 400 + "}", "finite"),
        ("regression", "[3]", "not a JSON object"),
        ("regression", '{"value": 3', "is not JSON"),
        ("single_label", '{"label": ""}', "class name"),
    ],
)
def test_a_file_that_does_not_say_it_is_named(
    tmp_path: Path, config_for: ConfigFor, task: str, text: str, message: str
) -> None:
    image(tmp_path, "a", text=text)
    with pytest.raises(DataError, match=message) as caught:
        read_catalog(config_for(tmp_path, task=task))
    assert caught.value.where == str(tmp_path / "a.json")


def test_an_image_without_its_file_is_named(tmp_path: Path, config_for: ConfigFor) -> None:
    image(tmp_path, "a", {"value": 1})
    image(tmp_path, "b")
    with pytest.raises(DataError, match=r"b\.json") as caught:
        read_catalog(config_for(tmp_path, task="regression"))
    assert caught.value.where == str(tmp_path / "b.png")

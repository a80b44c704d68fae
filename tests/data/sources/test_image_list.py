"""The list of the images that a command line names, as long as one likes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from imagetune.data.sources.image_list import list_images
from imagetune.errors import DataError
from imagetune.recipe.sections.data import ColumnsConfig


def listed(words: list[str], **more: object) -> list[str]:
    with list_images(words, **more) as images:  # type: ignore[arg-type]
        assert [images[place] for place in range(len(images))] == [*images]
        return [*images]


def write_table(path: Path, cells: list[str], column: str = "path") -> str:
    if path.suffix == ".parquet":
        parquet.write_table(pa.table({column: cells}), path)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        path.write_text(f"{column}{separator}more\n" + "".join(f"{cell}{separator}x\n" for cell in cells))
    return str(path)


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.parquet", "LIST.CSV"])
def test_each_row_of_a_table_is_listed_relative_to_its_folder(tmp_path: Path, name: str) -> None:
    table = write_table(tmp_path / name, ["b.png", "a.png", "b.png", "/far/c.png"])
    here = str(tmp_path)
    assert listed([table]) == [f"{here}/b.png", f"{here}/a.png", f"{here}/b.png", "/far/c.png"]


def test_the_recipe_names_the_column_and_completes_its_cells(tmp_path: Path) -> None:
    columns = ColumnsConfig(path="id", path_format="scans/{}.jpg")
    for name in ("list.csv", "list.parquet"):
        table = write_table(tmp_path / name, ["0001"], "id")
        assert listed([table], columns=columns) == [f"{tmp_path}/scans/0001.jpg"]
        with pytest.raises(DataError, match="has no column 'path'; its columns are 'id'"):
            listed([table])


def test_a_table_without_a_path_in_some_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3 has no path"):
        listed([write_table(tmp_path / "list.csv", ["a.png", " "])])
    with pytest.raises(DataError, match="row 2 has no path"):
        listed([write_table(tmp_path / "list.parquet", ["a.png", ""])])
    with pytest.raises(DataError, match="has a header but no rows"):
        listed([write_table(tmp_path / "list.csv", [])])
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is not a readable table"):
        listed([str(tmp_path / "list.parquet")])


def test_what_two_words_name_is_listed_once_and_in_the_order_of_the_words(class_folders: Path) -> None:
    found = listed([str(class_folders / "dog"), str(class_folders / "*" / "0[01].png"), str(class_folders / "dog")])
    assert found[:12] == sorted(map(str, (class_folders / "dog").iterdir()))
    assert found[12:] == [
        str(class_folders / name) for name in ("cat/00.png", "cat/01.png", "owl/00.png", "owl/01.png")
    ]


def test_names_that_are_not_utf8_come_through(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).touch()
    assert listed([str(tmp_path)]) == [f"{tmp_path}/{name}"]


def test_other_processes_read_the_same_list_and_its_file_goes_with_it(class_folders: Path) -> None:
    images = list_images([str(class_folders)])
    copy = pickle.loads(pickle.dumps(images))
    assert copy[3:5] == images[3:5] == [*images][3:5]
    assert len(pickle.dumps(images)) < 1000
    folder = images._file.parent
    assert folder.is_dir()
    del images
    assert not folder.exists()


def test_a_list_has_a_hash_of_its_paths_in_their_order(tmp_path: Path) -> None:
    one, same, other = ([*cells] for cells in ("ab", "ab", "ba"))
    hashes = []
    for cells in (one, same, other):
        with list_images([write_table(tmp_path / "list.csv", cells)]) as images:
            hashes.append(images.compute_sha256())
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_list_takes_as_much_memory_for_many_images_as_for_few(tmp_path: Path) -> None:
    import tracemalloc

    def peak(table: str) -> int:
        tracemalloc.start()
        with list_images([table]) as images:
            assert sum(1 for _ in images) == len(images)
            images.compute_sha256()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    few, many = (write_table(tmp_path / f"{n}.csv", [f"{row:08}.png" for row in range(n)]) for n in (1_000, 50_000))
    peak(few)  # what is made once
    # As a list of texts they would take 5 MB; a table is looked through in blocks of up to 4.
    assert peak(many) < peak(few) + 1_500_000

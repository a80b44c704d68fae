"""Finished runs opened again, also where their images have moved since."""

import pytest

from imagetune.recipe.sections.data import DataConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.open import read_run_splits


@pytest.mark.parametrize(("source", "root"), [("pets", "pets"), ("tables/pets.csv", "tables")])
def test_images_that_have_moved_are_named_where_they_were(tmp_path, source, root):
    folder = RunFolder(tmp_path)
    folder.splits.write_text("path,label,split,group\ncat/1.png,cat,train,0\ndog/1.png,dog,train,1\n", "utf-8")
    splits = read_run_splits(folder, DataConfig(source=str(tmp_path / source)), ("cat", "dog"))
    assert splits.train[0].path == str(tmp_path / root / "cat" / "1.png")

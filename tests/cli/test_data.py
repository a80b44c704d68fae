import json
import shutil
import subprocess
import sys

import cv2


def test_a_clean_folder_passes(pictures, imagetune):
    outcome = imagetune("data", "check", pictures)
    assert outcome.code == 0
    assert "30 pictures, 3 classes" in outcome.out


def test_every_bad_path_is_in_the_json(pictures, workplace, imagetune):
    folder = workplace / "dirty"
    shutil.copytree(pictures, folder)
    (folder / "red" / "empty.png").touch()
    (folder / "red" / "page.jpg").write_text("<html></html>")
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "red00.png").read_bytes()[:300])
    shutil.copy(folder / "red" / "red01.png", folder / "blue" / "same.png")
    text = imagetune("data", "check", folder, "--json").out
    for name in ("empty.png", "page.jpg", "cut.png", "same.png"):
        assert name in text
    assert json.loads(text)["findings"]


def test_checking_changes_no_picture(pictures, imagetune):
    before = {path: path.read_bytes() for path in pictures.rglob("*.png")}
    imagetune("data", "check", pictures)
    assert {path: path.read_bytes() for path in pictures.rglob("*.png")} == before


def test_preview_draws_a_sheet(recipe, workplace, imagetune):
    outcome = imagetune("data", "preview", recipe, "--out", "sheet.png", "--pictures", "4", "--views", "3")
    assert outcome.code == 0
    assert cv2.imread(str(workplace / "sheet.png")).std() > 10


def test_neither_starts_keras(recipe, workplace):
    code = (
        "import sys\n"
        "from imagetune.cli.main import run\n"
        f"assert run(['data', 'check', {str(recipe)!r}]) == 0\n"
        f"assert run(['data', 'preview', {str(recipe)!r}, '--out', 'a.png']) == 0\n"
        "assert not {'keras', 'tensorflow', 'mlflow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=workplace)
    assert done.returncode == 0, done.stderr

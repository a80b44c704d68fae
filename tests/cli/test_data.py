import json
import shutil
import subprocess
import sys

import cv2
import pytest


def test_a_clean_folder_passes(images, imagetune):
    outcome = imagetune("data", "check", images)
    assert outcome.code == 0
    assert "30 images, 3 classes" in outcome.out


def test_every_bad_path_is_in_the_json(images, workplace, imagetune):
    folder = workplace / "dirty"
    shutil.copytree(images, folder)
    (folder / "red" / "empty.png").touch()
    (folder / "red" / "page.jpg").write_text("<html></html>")
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "red00.png").read_bytes()[:300])
    shutil.copy(folder / "red" / "red01.png", folder / "blue" / "same.png")
    text = imagetune("data", "check", folder, "--json").out
    for name in ("empty.png", "page.jpg", "cut.png", "same.png"):
        assert name in text
    assert json.loads(text)["findings"]


def test_checking_changes_no_image(images, imagetune):
    before = {path: path.read_bytes() for path in images.rglob("*.png")}
    imagetune("data", "check", images)
    assert {path: path.read_bytes() for path in images.rglob("*.png")} == before


def test_codes_are_listed_without_a_source(imagetune):
    outcome = imagetune("data", "check", "--codes")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert any(line.startswith("blank-image") and "warning" in line for line in lines)
    assert any(line.startswith("leak ") and "data.audit.on_leak" in line for line in lines)


@pytest.fixture
def odd_recipe(images, recipe, workplace):
    """A recipe on images of which one has the wrong suffix."""
    shutil.copytree(images, workplace / "odd")
    (workplace / "odd" / "red" / "red01.png").rename(workplace / "odd" / "red" / "suffix.jpg")
    recipe.write_text(recipe.read_text().replace(str(images), "odd"))
    return recipe


def test_a_code_of_fail_on_stops_the_check_and_one_of_allow_is_not_shown(odd_recipe, imagetune):
    recipe = odd_recipe
    outcome = imagetune("data", "check", recipe, "-o", "data.audit.fail_on=[wrong-suffix]")
    assert outcome.code == 3
    assert "error[data] 1 image with a file name suffix that doesn't match the content: " in outcome.err
    outcome = imagetune("data", "check", recipe, "-o", "data.audit.allow=[wrong-suffix]")
    assert outcome.code == 0
    assert "wrong-suffix" not in outcome.out
    document = imagetune("data", "check", recipe, "-o", "data.audit.allow=[wrong-suffix]", "--json").json()
    assert [found["code"] for found in document["allowed"]] == ["wrong-suffix"]


def test_a_fit_begins_with_the_findings_and_stops_at_those_of_fail_on(odd_recipe, workplace, imagetune):
    from imagetune.runs.checks.recipe import load_checked_recipe
    from imagetune.runs.prepare import read_data

    said = []
    read_data(load_checked_recipe(odd_recipe).recipe, say=lambda *message: said.append(message))
    assert ("note", "1 image with a file name suffix that doesn't match the content [wrong-suffix]") in said
    outcome = imagetune("fit", odd_recipe, "-o", "data.audit.fail_on=[wrong-suffix]", "--run-dir", "run")
    assert outcome.code == 3
    assert "remove wrong-suffix from data.audit.fail_on" in outcome.err
    assert not list(workplace.glob("run/checkpoints"))


def test_an_unknown_code_is_a_mistake_in_the_recipe(recipe, imagetune):
    outcome = imagetune("data", "check", recipe, "-o", "data.audit.allow=[blured]")
    assert outcome.code == 2
    assert "did you mean 'blurred'?" in outcome.err


def test_preview_draws_a_sheet(recipe, workplace, imagetune):
    outcome = imagetune("data", "preview", recipe, "--out", "sheet.png", "--images", "4", "--copies", "3")
    assert outcome.code == 0
    assert cv2.imread(str(workplace / "sheet.png")).std() > 10


def test_neither_starts_keras(real_recipe, workplace):
    code = (
        "import sys\n"
        "from imagetune.cli.main import run\n"
        f"assert run(['data', 'check', {str(real_recipe)!r}]) == 0\n"
        f"assert run(['data', 'preview', {str(real_recipe)!r}, '--out', 'a.png']) == 0\n"
        "assert not {'keras', 'tensorflow', 'mlflow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=workplace)
    assert done.returncode == 0, done.stderr


def make_dirty(images, folder):
    """Coloured images with an unreadable one, a copy and a contradiction."""
    shutil.copytree(images, folder)
    (folder / "red" / "empty.png").touch()
    shutil.copy(folder / "red" / "red02.png", folder / "red" / "copy.png")
    shutil.copy(folder / "red" / "red01.png", folder / "blue" / "same.png")
    return folder


def test_a_page_shows_what_was_found(images, workplace, imagetune):
    dirty = make_dirty(images, workplace / "dirty")
    outcome = imagetune("data", "check", dirty, "--page", "check.html")
    assert outcome.code == 0
    page = (workplace / "check.html").read_text(encoding="utf-8")
    assert "1 image under more than one label" in page
    assert page.count("data:image/jpeg;base64,") >= 4


def test_a_page_is_not_written_among_the_images(images, workplace, imagetune):
    dirty = make_dirty(images, workplace / "dirty")
    outcome = imagetune("data", "check", dirty, "--page", dirty / "check.html")
    assert outcome.code == 3
    assert "imagetune never writes" in outcome.err
    assert not (dirty / "check.html").exists()


def test_fix_writes_a_source_that_passes_the_check(images, workplace, imagetune):
    dirty = make_dirty(images, workplace / "dirty")
    strict = ("-o", "data.audit.on_conflict=error", "-o", "data.on_bad_image=error")
    recipe = workplace / "strict.yaml"
    recipe.write_text(f"name: strict\ndata: {{source: {dirty}}}\nmodel: {{backbone: efficientnet_lite0}}\n")
    assert imagetune("data", "check", recipe, *strict).code == 3
    outcome = imagetune("data", "check", recipe, *strict, "--fix", "fixed")
    assert outcome.code == 0, outcome.err
    assert "29 rows kept; 4 rows left out" in outcome.out
    assert imagetune("data", "check", recipe, *strict, "-o", "data.source=fixed/cleaned.csv").code == 0
    changes = (workplace / "fixed" / "changes.csv").read_text(encoding="utf-8").splitlines()
    assert changes[0] == "path,label,split,change,why"
    assert len(changes) == 5


def test_fix_lists_its_files_as_json_and_writes_over_nothing(images, workplace, imagetune):
    dirty = make_dirty(images, workplace / "dirty")
    fixed = imagetune("data", "check", dirty, "--json", "--fix", "fixed").json()["fixed"]
    assert fixed["cleaned"] == str(workplace / "fixed" / "cleaned.csv")
    assert (fixed["rows"], fixed["changed"], fixed["ok"]) == (29, {"left out": 4}, True)
    before = (workplace / "fixed" / "cleaned.csv").read_bytes()
    again = imagetune("data", "check", dirty, "--fix", "fixed")
    assert again.code == 3
    assert "already exists" in again.err
    assert (workplace / "fixed" / "cleaned.csv").read_bytes() == before


def test_findings_are_shown_where_nothing_can_be_fixed(images, workplace, imagetune):
    shutil.copytree(images / "red", workplace / "twice" / "red")
    shutil.copytree(images / "red", workplace / "twice" / "crimson")
    outcome = imagetune("data", "check", workplace / "twice", "--fix", workplace / "fixed")
    assert outcome.code == 3
    assert "under more than one label" in outcome.out
    assert "would have no rows" in outcome.err


def test_no_sheet_is_drawn_among_the_images(workplace, imagetune, recipe, images):
    before = sorted(images.rglob("*"))
    outcome = imagetune("data", "preview", recipe, "--out", images / "sheet.png")
    assert (outcome.code, sorted(images.rglob("*"))) == (3, before)
    assert "imagetune never writes" in outcome.err


def test_what_is_no_image_is_not_drawn_on_the_page(images, workplace, imagetune):
    folder = workplace / "linked"
    shutil.copytree(images, folder)
    (folder / "red" / "loop").symlink_to(folder, target_is_directory=True)
    assert imagetune("data", "check", folder, "--page", workplace / "check.html").code == 0
    page = (workplace / "check.html").read_text()
    assert "red/loop" in page
    assert "Is a directory" not in page


def test_a_table_of_ids_is_refused_with_the_format_that_finds_the_images(images, workplace, imagetune):
    shutil.copytree(images, workplace / "train")
    rows = [f"{path.parent.name}/{path.stem},{path.parent.name}" for path in sorted(images.rglob("*.png"))]
    (workplace / "labels.csv").write_text("\n".join(("path,label", *rows)))
    outcome = imagetune("data", "check", "labels.csv")
    assert outcome.code == 3
    assert "not one of 30 images can be used; there is train/blue/blue00.png" in outcome.err
    assert "set data.columns.path_format: train/{}.png" in outcome.err
    rows = [row.replace("blue/", "/elsewhere/") for row in rows if row.startswith("blue")]
    (workplace / "moved.csv").write_text("\n".join(("path,label", *rows[:-1], "/elsewhere/x.png,red")))
    assert "such as train/blue/blue00.png" in imagetune("data", "check", "moved.csv").err


def test_the_check_refuses_what_a_fit_refuses(images, recipe, workplace, imagetune):
    red = cv2.imread(str(images / "red" / "red00.png"))
    (workplace / "film" / "red").mkdir(parents=True)
    for number in range(20):
        frame = red.copy()
        frame[number % 32, 0] += 1
        cv2.imwrite(str(workplace / "film" / "red" / f"{number}.png"), frame)
    shutil.copytree(images / "blue", workplace / "film" / "blue")
    options = ("-o", "data.source=film")
    checked, fitted = imagetune("data", "check", recipe, *options), imagetune("fit", recipe, *options, "--dry-run")
    assert (checked.code, fitted.code) == (3, 3)
    for text in (checked.err, fitted.err):
        assert "the class 'red' has too few images to split: 20 in 1 unit (groups and near-duplicates stay" in text
        assert "data.audit.near_duplicates: false" in text
    assert "no-split" in checked.out
    allowed = imagetune("data", "check", recipe, *options, "-o", "data.audit.allow=[no-split]")
    assert allowed.code == 3
    assert imagetune("data", "check", recipe, *options, "-o", "data.audit.near_duplicates=false").code == 0


def test_a_class_of_heic_photos_is_named_as_such(images, workplace, imagetune):
    shutil.copytree(images, workplace / "phone")
    for number, image in enumerate(sorted((workplace / "phone" / "red").iterdir())):
        image.unlink()
        # Of a photo only its first bytes, so that it can't be read whatever is installed.
        (workplace / "phone" / "red" / f"IMG_{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    outcome = imagetune("data", "check", "phone")
    assert outcome.code == 3
    assert "no image of 'red' can be used" in outcome.err
    assert "IMG_0.HEIC" in outcome.err

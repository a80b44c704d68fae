import json
import shutil

import cv2
import pytest

from imagetune.run_folder.receipt import check_files


@pytest.fixture
def run(fitted, workplace):
    """A copy of the finished run, which the test may change, and which no MLflow knows of."""
    shutil.copytree(fitted[1], workplace / "run")
    (workplace / "run" / "tracking.json").unlink()
    return workplace / "run"


def test_images_are_explained_side_by_side(run, images, workplace, imagetune):
    outcome = imagetune("explain", run, images / "red", "--out", workplace / "saliency", "--json")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(lines) == 10
    for line in lines:
        height, width, _ = cv2.imread(line["file"]).shape
        assert width > 3 * height
        assert line["target"] in ("blue", "green", "red")
        assert line["error"] is None


def test_a_class_can_be_asked_for(run, images, workplace, imagetune):
    outcome = imagetune(
        "explain", run, images / "red" / "red00.png", "--out", workplace / "saliency", "--class", "green"
    )
    assert outcome.code == 0, outcome.err
    assert "\tgreen\t" in outcome.out
    wrong = imagetune("explain", run, images / "red" / "red00.png", "--out", workplace / "saliency", "--class", "pink")
    assert wrong.code == 2
    assert "no class 'pink'" in wrong.err
    assert "blue, green, red" in wrong.err


def test_an_image_that_cannot_be_read_gets_an_error_and_others_their_file(run, images, workplace, imagetune):
    (workplace / "new").mkdir()
    shutil.copy(images / "red" / "red00.png", workplace / "new" / "a.png")
    (workplace / "new" / "b.png").write_bytes(b"no image")
    (workplace / "new" / "c").mkdir()
    shutil.copy(images / "blue" / "blue00.png", workplace / "new" / "c" / "a.png")
    outcome = imagetune("explain", run, workplace / "new", "--out", workplace / "saliency", "--json")
    assert outcome.code == 0, outcome.err
    found = {line["path"].removeprefix(f"{workplace}/new/"): line for line in map(json.loads, outcome.out.splitlines())}
    assert "not an image" in found["b.png"]["error"]
    assert found["a.png"]["file"] != found["c/a.png"]["file"]
    assert sorted(path.name for path in (workplace / "saliency").glob("*.jpg")) == ["a-2.jpg", "a.jpg"]


def test_a_run_can_be_tested_on_corrupted_images_later(run, imagetune):
    text = (run / "recipe.yaml").read_text()
    assert "robustness: null" in text
    corruptions = "robustness: {corruptions: [contrast, rotation], severities: [1, 5], images: 6}"
    (run / "recipe.yaml").write_text(text.replace("robustness: null", corruptions))
    before = json.loads((run / "evaluation.json").read_text())
    outcome = imagetune("evaluate", run, "--robustness")
    assert outcome.code == 0, outcome.err
    assert "contrast" in outcome.out
    assert "mean error" in outcome.out
    after = json.loads((run / "evaluation.json").read_text())
    assert {row["name"] for row in after["robustness"]["corruptions"]} == {"contrast", "rotation"}
    assert {key: value for key, value in after.items() if key != "robustness"} == before
    assert "Robustness to corruptions" in (run / "report.html").read_text()
    assert list((run / "robustness").glob("1-contrast.jpg"))
    # But for the recipe, which was written to by hand.
    check = check_files(run)
    assert ([one.where for one in check.differences], check.unrecorded) == (["recipe.yaml"], ())


def test_other_images_and_corruption_exclude_each_other(run, images, imagetune):
    outcome = imagetune("evaluate", run, "--robustness", "--data", images)
    assert outcome.code == 2
    assert "--data" in outcome.err

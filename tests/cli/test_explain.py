import json
import shutil

import cv2
import pytest


@pytest.fixture
def run(fitted, workplace):
    """A copy of the finished run, which the test may change, and which no MLflow knows of."""
    shutil.copytree(fitted[1], workplace / "run")
    (workplace / "run" / "tracking.json").unlink()
    return workplace / "run"


def test_pictures_are_explained_side_by_side(run, pictures, workplace, imagetune):
    outcome = imagetune("explain", run, pictures / "red", "--out", workplace / "looks", "--json")
    assert outcome.code == 0, outcome.err
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(lines) == 10
    for line in lines:
        height, width, _ = cv2.imread(line["file"]).shape
        assert width > 3 * height
        assert line["target"] in ("blue", "green", "red")
        assert line["error"] is None


def test_a_class_can_be_asked_for(run, pictures, workplace, imagetune):
    outcome = imagetune(
        "explain", run, pictures / "red" / "red00.png", "--out", workplace / "looks", "--class", "green"
    )
    assert outcome.code == 0, outcome.err
    assert "\tgreen\t" in outcome.out
    wrong = imagetune("explain", run, pictures / "red" / "red00.png", "--out", workplace / "looks", "--class", "pink")
    assert wrong.code == 2
    assert "no class 'pink'" in wrong.err
    assert "blue, green, red" in wrong.err


def test_a_picture_that_cant_be_read_gets_an_error_and_others_their_file(run, pictures, workplace, imagetune):
    (workplace / "new").mkdir()
    shutil.copy(pictures / "red" / "red00.png", workplace / "new" / "a.png")
    (workplace / "new" / "b.png").write_bytes(b"no picture")
    (workplace / "new" / "c").mkdir()
    shutil.copy(pictures / "blue" / "blue00.png", workplace / "new" / "c" / "a.png")
    outcome = imagetune("explain", run, workplace / "new", "--out", workplace / "looks", "--json")
    assert outcome.code == 0, outcome.err
    found = {line["path"].removeprefix(f"{workplace}/new/"): line for line in map(json.loads, outcome.out.splitlines())}
    assert "not a picture" in found["b.png"]["error"]
    assert found["a.png"]["file"] != found["c/a.png"]["file"]
    assert sorted(path.name for path in (workplace / "looks").iterdir()) == ["a-2.jpg", "a.jpg"]


def test_a_run_can_be_tested_on_damaged_pictures_later(run, imagetune):
    text = (run / "recipe.yaml").read_text()
    assert "robustness: null" in text
    damages = "robustness: {corruptions: [contrast, rotation], severities: [1, 5], pictures: 6}"
    (run / "recipe.yaml").write_text(text.replace("robustness: null", damages))
    before = json.loads((run / "evaluation.json").read_text())
    outcome = imagetune("evaluate", run, "--robustness")
    assert outcome.code == 0, outcome.err
    assert "contrast" in outcome.out
    assert "mean error" in outcome.out
    after = json.loads((run / "evaluation.json").read_text())
    assert {row["name"] for row in after["robustness"]["corruptions"]} == {"contrast", "rotation"}
    assert {key: value for key, value in after.items() if key != "robustness"} == before
    assert "On damaged pictures" in (run / "report.html").read_text()
    assert list((run / "robustness").glob("1-contrast.jpg"))


def test_other_pictures_and_damage_dont_go_together(run, pictures, imagetune):
    outcome = imagetune("evaluate", run, "--robustness", "--data", pictures)
    assert outcome.code == 2
    assert "--data" in outcome.err

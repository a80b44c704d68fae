import csv
import json
import shutil

import pytest


def change_json(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def second(fitted, recipe, workplace, imagetune):
    """Another run on the same images and splits, with images of another size and TTA transforms of its own."""
    settings = ("data.image_size=40", "train.stages.0.learning_rate=3e-2", "evaluate.tta=[horizontal_flip, zoom_in]")
    options = [word for setting in settings for word in ("-o", setting)]
    outcome = imagetune("fit", recipe, "--run-dir", "second", "-o", "tracking.enabled=false", *options)
    assert outcome.code == 0, outcome.err
    return workplace / "second"


def predictions(outcome):
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_views_and_other_runs_are_averaged(fitted, second, images, workplace, imagetune):
    first = fitted[1]
    assert json.loads((second / "model/manifest.json").read_text())["tta"] == ["horizontal_flip", "zoom_in"]
    assert json.loads((second / "evaluation.json").read_text())["tta"] == ["horizontal_flip", "zoom_in"]
    assert "test-time augmentation" in imagetune("evaluate", second).out
    one, two, both = (
        predictions(imagetune("predict", *words, images / "red", "--json"))
        for words in ((first,), (second,), (first, "--with", second))
    )
    for left, right, mean in zip(one, two, both, strict=True):
        expected = {name: (p + right["probabilities"][name]) / 2 for name, p in left["probabilities"].items()}
        assert mean["probabilities"] == pytest.approx(expected, abs=1e-6)
        assert mean["label"] == max(expected, key=expected.get)

    outcome = imagetune("evaluate", first, "--with", second, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    assert [member["tta"] for member in document["members"]] == [[], ["horizontal_flip", "zoom_in"]]
    right = expected_right(first, second)
    assert document["splits"]["test"]["metrics"]["accuracy"]["value"] == pytest.approx(right)


def expected_right(*runs):
    """The accuracy of the mean of the probabilities that each run wrote for its own test."""
    tables = []
    for run in runs:
        with (run / "predictions/test.csv").open(newline="") as file:
            tables.append({row["path"]: row for row in csv.DictReader(file)})
    hits = []
    for path, row in tables[0].items():
        means = {name: sum(float(table[path][name]) for table in tables) for name in ("blue", "green", "red")}
        hits.append(max(means, key=means.get) == row["label"])
    return sum(hits) / len(hits)


def test_a_run_with_itself_changes_nothing(fitted, images, workplace, imagetune):
    run = fitted[1]
    alone = imagetune("predict", run, images / "blue", "--json")
    twice = imagetune("predict", run, images / "blue", "--with", run, "--with", run, "--json")
    for one, other in zip(predictions(alone), predictions(twice), strict=True):
        assert other["probabilities"] == pytest.approx(one["probabilities"], abs=1e-7)


def test_other_classes_are_named(fitted, images, workplace, imagetune):
    other = shutil.copytree(fitted[1], workplace / "other")
    change_json(other / "model/manifest.json", class_names=["blue", "green", "yellow"])
    for words in (("predict", fitted[1], images), ("evaluate", fitted[1])):
        outcome = imagetune(*words, "--with", other)
        assert outcome.code == 9
        assert "it lacks red and has yellow besides" in outcome.err


def test_a_member_that_learned_from_test_images_is_refused(fitted, workplace, imagetune):
    other = shutil.copytree(fitted[1], workplace / "other")
    table = (other / "splits.csv").read_text()
    tested = table.count(",test,")
    (other / "splits.csv").write_text(table.replace(",test,", ",train,", 2))
    outcome = imagetune("evaluate", fitted[1], "--with", other)
    assert outcome.code == 3
    assert f"2 of {tested} test images are among its training or validation images" in outcome.err
    assert str(other) in outcome.err


def test_a_copy_of_a_test_image_elsewhere_is_recognised_by_its_content(fitted, images, workplace, imagetune):
    other = shutil.copytree(fitted[1], workplace / "other")
    moved = shutil.copytree(images, workplace / "moved")
    lock = json.loads((other / "lock.json").read_text())
    hashes = {path.replace(str(images), str(moved)): value for path, value in lock["images"].items()}
    change_json(other / "lock.json", images=hashes)
    recipe = (other / "recipe.yaml").read_text()
    (other / "recipe.yaml").write_text(recipe.replace(str(images), str(moved)))
    assert imagetune("evaluate", fitted[1], "--with", other).code == 0
    table = (other / "splits.csv").read_text()
    (other / "splits.csv").write_text(table.replace(",test,", ",val,"))
    outcome = imagetune("evaluate", fitted[1], "--with", other)
    assert outcome.code == 3
    count = table.count(",test,")
    assert f"{count} of {count} test images" in outcome.err


def test_other_labelled_images_must_be_new_to_every_run(fitted, images, workplace, imagetune):
    copied = shutil.copytree(images, workplace / "copied")
    outcome = imagetune("evaluate", fitted[1], "--with", fitted[1], "--data", copied)
    assert outcome.code == 3
    assert "of 30 test images are among its training or validation images" in outcome.err


def test_a_run_that_does_not_say_what_it_learned_from_is_refused(fitted, workplace, imagetune):
    other = shutil.copytree(fitted[1], workplace / "other")
    (other / "splits.csv").unlink()
    outcome = imagetune("evaluate", fitted[1], "--with", other)
    assert (outcome.code, "no splits.csv" in outcome.err) == (3, True)


def test_an_image_that_cannot_be_read_gets_its_error(fitted, images, workplace, imagetune):
    mixed = workplace / "mixed"
    mixed.mkdir()
    (mixed / "bad.png").write_text("no image")
    shutil.copy(images / "red" / "red00.png", mixed / "good.png")
    lines = predictions(imagetune("predict", fitted[1], mixed, "--with", fitted[1], "--json"))
    assert [bool(line["error"]) for line in lines] == [True, False]


def test_views_that_would_change_the_shape_are_refused(recipe, imagetune):
    outcome = imagetune(
        "fit", recipe, "-o", "data.image_size=[32, 40]", "-o", "evaluate.tta=[rotate_90, zoom_in, zoom_in]"
    )
    assert outcome.code == 2
    assert "evaluate.tta: rotate_90 needs square images, not 32x40" in outcome.err
    assert "names zoom_in more than once" in outcome.err

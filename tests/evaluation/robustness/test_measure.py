import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from examined import examined_of

from imagetune.data.loading.decode import load_image
from imagetune.data.sources.labels import LabelRule
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import EvaluatedSplit
from imagetune.evaluation.predictions import Predictions, build_predictions
from imagetune.evaluation.robustness.corruptions import corrupt
from imagetune.evaluation.robustness.measure import (
    Subject,
    analyse_robustness,
    draw_images,
    make_corruption_seed,
    measure_robustness,
)
from imagetune.evaluation.robustness.metrics import Sums, compute_robustness_metrics, compute_sums, draw_resampling
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.evaluate import EvaluateConfig, RobustnessConfig
from imagetune.reports.run.report import write_report
from imagetune.reports.sections.robustness import _compute_heat
from imagetune.reports.tiles import RunTiles

CLASSES = ("blue", "green", "red")
SIZE = 32


def recipe_of(source, **evaluate):
    data = DataConfig(source=str(source), image_size=SIZE, workers=0)
    return Recipe(seed=3, data=data, evaluate=EvaluateConfig(bootstrap_samples=200, batch_size=7, **evaluate))


def colour_model():
    """Predictions by the mean colour, blue, green or red: noise does not harm it, fog does."""
    inputs = keras.Input((SIZE, SIZE, 3))
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    logits = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(inputs, logits(mean))
    logits.set_weights([20 * np.eye(3)[::-1], np.array([0.0, 0.0, 8.0])])
    return model


@pytest.fixture
def subject(images, tmp_path):
    def make(**config):
        recipe = recipe_of(images)
        return Subject(
            model=colour_model(),
            data=recipe.data,
            evaluate=recipe.evaluate,
            seed=recipe.seed,
            batch_size=7,
            config=RobustnessConfig(**config),
            class_names=CLASSES,
            thresholds=(),
            root=images,
            tiles=RunTiles(tmp_path),
        )

    return make


@pytest.fixture
def records(images):
    return [Record(str(path), path.parent.name) for path in sorted(images.glob("*/*.png"))]


def test_predictions_are_those_of_each_corrupted_image_alone(subject, records):
    tested = subject(corruptions=("contrast", "fog", "gaussian_noise"), severities=(1, 4), images=20)
    document = measure_robustness(tested, records)
    chosen = draw_images(records, tested)
    assert document["images"] == len(chosen) == 20
    images = [load_image(record.path, tested.data.image, max_pixels=10**6) for record in chosen]
    labels = np.array([CLASSES.index(record.label) for record in chosen])
    for row in document["corruptions"]:
        for severity in (1, 4):
            corrupted = np.stack(
                [
                    corrupt(image, row["name"], severity, seed=make_corruption_seed(3, at))
                    for at, image in enumerate(images)
                ]
            )
            right = (tested.model.predict(corrupted, verbose=0).argmax(axis=1) == labels).mean()
            assert row["by_severity"][str(severity)]["value"] == pytest.approx(right)
    clean = (tested.model.predict(np.stack(images), verbose=0).argmax(axis=1) == labels).mean()
    assert document["clean"]["value"] == pytest.approx(clean)
    losses = [row["lost"]["value"] for row in document["corruptions"]]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.1
    json.dumps(document, allow_nan=False)


def test_progress_ends_with_all_images(subject, records):
    reported = []
    tested = subject(corruptions=("fog",), severities=(1, 2), images=10)
    measure_robustness(tested, records, progress=lambda done, total: reported.append((done, total)))
    assert reported[-1] == (30, 30)
    assert [done for done, _ in reported] == sorted({done for done, _ in reported})


def test_the_sheet_has_two_classes_with_their_predictions_under_each_corruption(subject, records, tmp_path):
    sheet = measure_robustness(subject(corruptions=("contrast", "fog"), severities=(2, 5), images=6), records)["sheet"]
    assert sheet["severity"] == 5
    assert len({image["true"] for image in sheet["images"]}) == 2
    for image in sheet["images"]:
        assert image["clean"]["prediction"] == image["true"]
        assert [tile["name"] for tile in image["corrupted"]] == ["contrast", "fog"]
        for tile in (image["clean"], *image["corrupted"]):
            assert tile["prediction"] in CLASSES
            assert (tmp_path / tile["file"]).read_bytes()[:2] == b"\xff\xd8"


def test_classes_have_equal_shares_as_far_as_they_go(subject, records):
    few = [record for record in records if record.label != "red"] + [Record("r.png", "red"), Record("x.png", "strange")]
    labels = [record.label for record in draw_images(few, subject(images=9))]
    assert {name: labels.count(name) for name in CLASSES} == {"blue": 4, "green": 4, "red": 1}
    assert len(draw_images(few, subject(images=200))) == 21
    assert draw_images(few, subject(images=9)) == draw_images(few, subject(images=9))


def test_without_test_images_or_the_setting_nothing_is_measured(subject, records, images, tmp_path):
    tested = subject(corruptions=("fog",), severities=(1,))
    split = EvaluatedSplit(records, _predictions(records, tested), None)
    wanted = recipe_of(images, robustness=RobustnessConfig(corruptions=("fog",), severities=(1,), images=6))
    run = examined_of(tested.model, wanted, {"val": split, "test": split}, images, tmp_path)
    assert analyse_robustness(run)["images"] == 6
    assert analyse_robustness(replace(run, splits={"val": split})) is None
    assert analyse_robustness(replace(run, evaluate=recipe_of(images).evaluate)) is None


def _predictions(records, tested):
    images = np.stack([load_image(record.path, tested.data.image, max_pixels=10**6) for record in records])
    outputs = tested.model.predict(images, verbose=0).astype(np.float64)
    paths, labels = [record.path for record in records], [record.label for record in records]
    return build_predictions(paths, labels, outputs, CLASSES, rule=LabelRule("single_label", ";"))


def predictions(right, count=10):
    """Predictions of two classes of which the first ``right`` are right."""
    labels = np.arange(count) % 2
    given = np.where(np.arange(count) < right, labels, 1 - labels)
    return Predictions(tuple(map(str, range(count))), labels, np.eye(2)[given] * 0.8 + 0.1, ("a", "b"))


CONFIG = EvaluateConfig(bootstrap_samples=500)


def metrics(clean, corrupted, groups=None):
    drawn = draw_resampling(clean, groups or [None] * len(clean.paths), CONFIG, seed=0)
    return compute_robustness_metrics(clean, corrupted, drawn)


def test_the_mean_corruption_error_by_hand():
    """Of 10 images 9 are right; fog leaves 7 and 3, snow 9 and 5; rotation is not common and doesn't count."""
    found = metrics(
        predictions(9),
        {
            ("fog", 1): predictions(7),
            ("fog", 5): predictions(3),
            ("snow", 1): predictions(9),
            ("snow", 5): predictions(5),
            ("rotation", 1): predictions(0),
            ("rotation", 5): predictions(0),
        },
    )
    assert found["mean_corruption_error"]["value"] == pytest.approx((0.5 + 0.3) / 2)
    assert found["relative_error"]["value"] == pytest.approx(0.4 - 0.1)
    assert [row["name"] for row in found["corruptions"]] == ["rotation", "fog", "snow"]
    fog = found["corruptions"][1]
    assert fog["mean"]["value"] == pytest.approx(0.5)
    assert fog["lost"]["value"] == pytest.approx(0.4)
    assert fog["lost"]["low"] <= 0.4 <= fog["lost"]["high"]


def test_only_uncommon_corruption_has_no_mean_corruption_error():
    assert metrics(predictions(9), {("rotation", 1): predictions(4)})["mean_corruption_error"] is None


def test_a_share_has_wilsons_interval():
    """Newcombe (Statistics in Medicine 17, 1998), table I: 81 of 263 is 0.2553 to 0.3662."""
    found = metrics(predictions(81, 263), {("fog", 1): predictions(15, 263)})
    assert (found["clean"]["low"], found["clean"]["high"]) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_what_is_lost_is_paired():
    """The corruption takes the same two images of 100 from the right ones: that is known better than either share."""
    found = metrics(predictions(60, 100), {("fog", 1): predictions(58, 100)})
    lost = found["corruptions"][0]["lost"]
    assert lost["high"] - lost["low"] < 0.08
    share = found["clean"]
    assert share["high"] - share["low"] > 0.15


def test_where_nothing_changes_no_interval_is_claimed():
    lost = metrics(predictions(8), {("fog", 1): predictions(8)})["corruptions"][0]["lost"]
    assert lost == {"value": 0.0, "low": None, "high": None}


def test_images_of_a_group_are_drawn_together():
    """Ten copies of each of ten images are worth no more than the ten."""
    clean = predictions(60, 100)
    groups = [str(index // 10) for index in range(100)]
    alone = metrics(clean, {("fog", 1): predictions(20, 100)})
    together = metrics(clean, {("fog", 1): predictions(20, 100)}, groups)
    widths = [found["clean"]["high"] - found["clean"]["low"] for found in (alone, together)]
    assert widths[1] > 2 * widths[0]


def test_labels_are_measured_by_micro_f1_and_numbers_by_their_error():
    several = Predictions(
        ("a", "b", "c"),
        np.full(3, -1),
        np.array([[0.9, 0.2], [0.8, 0.7], [0.1, 0.4]]),
        ("x", "y"),
        LabelRule("multi_label", ";"),
        np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
    )
    # Two labels found, one missed, one too many; the third image has none and gets none.
    assert compute_sums(several).score == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    numbers = replace(
        several, probabilities=np.array([[1.0], [2.0], [4.0]]), targets=np.array([[1.0], [4.0], [3.0]]),
        rule=LabelRule("regression", ";"), class_names=("x",),
    )  # fmt: skip
    assert compute_sums(numbers).score == pytest.approx(1.0)
    worse = replace(numbers, probabilities=numbers.probabilities + 2)
    found = metrics(numbers, {("fog", 1): worse})
    assert found["measure"] == "mae"
    assert found["corruptions"][0]["lost"]["value"] == pytest.approx((2 + 0 + 3) / 3 - 1)
    assert found["relative_error"]["value"] == pytest.approx((2 + 0 + 3) / 3 - 1)


def test_resampled_scores_are_scores_of_the_drawn():
    sums = Sums(np.array([1.0, 0.0, 2.0]), np.array([1.0, 2.0, 2.0]))
    weights = np.array([[1.0, 0.0, 3.0], [1.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    assert sums.scores(weights) == pytest.approx([3 / 5, 0, 1])


@pytest.mark.parametrize(("value", "clean", "heat"), [(0.9, 0.9, 0), (0.45, 0.9, 50), (0, 0.9, 100), (3, 1, 100)])
def test_heat_is_the_share_that_is_lost(value, clean, heat):
    assert _compute_heat(value, clean) == heat


def test_the_report_shows_table_and_images(run_folder, subject, records):
    tested = replace(
        subject(corruptions=("jpeg_compression", "rotation"), severities=(1, 5)), tiles=RunTiles(run_folder)
    )
    evaluation = json.loads((run_folder / "evaluation.json").read_text())
    evaluation["robustness"] = measure_robustness(tested, records)
    (run_folder / "evaluation.json").write_text(json.dumps(evaluation))
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "Robustness to corruptions" in page
    assert "JPEG compression" in page
    assert page.count('alt="original"') == 2
    # Images that are gone, or named where they have no business, are not shown and do no harm.
    evaluation["robustness"]["sheet"]["images"][0]["clean"]["file"] = "../../../secret.jpg"
    (run_folder / "evaluation.json").write_text(json.dumps(evaluation))
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert page.count('alt="original"') == 1
    assert "file not found" in page


def test_a_run_without_the_test_has_no_such_section(run_folder):
    assert "Robustness to corruptions" not in write_report(run_folder).read_text(encoding="utf-8")

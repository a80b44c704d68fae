import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from examined import examined_of
from tiny_backbones import TINY

from imagetune.data.sources.labels import LabelRule
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import EvaluatedSplit
from imagetune.evaluation.explain.explanations import choose_explained_outputs, explain_mistakes
from imagetune.evaluation.predictions import Predictions, build_predictions
from imagetune.model.build import build_model
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.reports.run.report import write_report
from imagetune.reports.sections.explanations import MAX_SHOWN
from imagetune.reports.tiles import RunTiles

CLASSES = ("blue", "green", "red")
CONFIG = ModelConfig(backbone=TINY, weights="random")


@pytest.fixture(scope="module")
def model(tiny):
    keras.utils.set_random_seed(1)
    return build_model(CONFIG, num_classes=3, image_size=(32, 32))


@pytest.fixture
def examined(model, images, tmp_path):
    """A run on coloured images that takes every third one for the class after its own, surer from one to the next."""
    records = [Record(str(path), path.parent.name) for path in sorted(images.glob("*/*.png"))]
    labels = np.array([CLASSES.index(record.label) for record in records])
    wrong = np.arange(len(records)) % 3 == 0
    outputs = np.full((len(records), 3), 0.1)
    outputs[np.arange(len(records)), np.where(wrong, (labels + 1) % 3, labels)] = 0.5 + 0.01 * np.arange(len(records))
    paths, texts = [record.path for record in records], [record.label for record in records]
    predictions = build_predictions(paths, texts, outputs, CLASSES, rule=LabelRule("single_label", ";"))
    recipe = Recipe(data=DataConfig(source=str(images), image_size=32), evaluate=EvaluateConfig(explain=3))
    return examined_of(model, recipe, {"test": EvaluatedSplit(records, predictions, None)}, images, tmp_path / "run")


def test_the_worst_mistakes_are_explained_for_prediction_and_truth(examined):
    document = explain_mistakes(examined)
    json.dumps(document, allow_nan=False)
    assert document["split"] == "test"
    assert document["cells"] == [2, 2]
    # Sureness rises with the position: the last three that are wrong, which are all red, predicted as blue.
    assert [image["path"] for image in document["images"]] == ["red/red07.png", "red/red04.png", "red/red01.png"]
    for image in document["images"]:
        assert (image["true"], image["predicted"]) == ("red", "blue")
        assert [saliency["class"] for saliency in image["saliency"]] == ["blue", "red"]
        assert image["saliency"][0]["probability"] > image["saliency"][1]["probability"]
        for file in (
            image["file"],
            *(saliency[name] for saliency in image["saliency"] for name in ("grad_cam", "occlusion")),
        ):
            assert (examined.folder / file).read_bytes()[:2] == b"\xff\xd8"
        for saliency in image["saliency"]:
            assert saliency["agreement"] is None or -1 <= saliency["agreement"] <= 1
    assert len(list((examined.folder / "explanations").iterdir())) == 3 * 5


def test_explaining_again_leaves_no_old_images(examined):
    explain_mistakes(examined)
    explain_mistakes(replace(examined, evaluate=EvaluateConfig(explain=1)))
    assert len(list((examined.folder / "explanations").iterdir())) == 5


def test_there_is_nothing_to_explain_without_mistakes_or_the_wish(examined):
    assert explain_mistakes(replace(examined, evaluate=EvaluateConfig(explain=0))) is None
    split = examined.splits["test"]
    right = replace(split.predictions, probabilities=np.eye(3)[split.predictions.labels])
    assert explain_mistakes(replace(examined, splits={"test": replace(split, predictions=right)})) is None


def test_a_number_is_explained_by_what_makes_it_err_and_by_the_contrary(examined, images):
    keras.utils.set_random_seed(2)
    model = build_model(CONFIG, num_classes=1, image_size=(32, 32), task="regression")
    records = examined.splits["test"].records[:3]
    rule = LabelRule("regression", value_name="age")
    outputs = np.array([[9.0], [1.0], [5.0]])
    predictions = build_predictions([one.path for one in records], ["5", "5", "5"], outputs, ("age",), rule=rule)
    run = replace(
        examined,
        model=model,
        data=examined.data.model_copy(update={"task": "regression"}),
        evaluate=EvaluateConfig(explain=2),
        splits={"test": EvaluatedSplit(records, predictions, None)},
    )
    document = explain_mistakes(run)
    json.dumps(document, allow_nan=False)
    assert [image["predicted"] for image in document["images"]] == ["9", "1"]
    named = [[saliency["class"] for saliency in image["saliency"]] for image in document["images"]]
    assert named == [["higher age", "lower age"], ["lower age", "higher age"]]
    for image in document["images"]:
        assert [saliency["probability"] for saliency in image["saliency"]] == [None, None]
        one, other = (saliency["agreement"] for saliency in image["saliency"])
        assert one == other


def test_of_several_labels_the_one_that_is_wrong_by_most_is_explained():
    predictions = Predictions(
        ("a", "b", "c"),
        np.full(3, -1),
        np.array([[0.6, 0.9, 0.8], [0.1, 0.3, 0.2], [0.2, 0.9, 0.1]]),
        ("x", "y", "z"),
        LabelRule("multi_label", ";"),
        np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    )
    # y is wrongly predicted, and z is the most probable true label.
    assert choose_explained_outputs(predictions, 0) == (1, 2)
    # x is missed, and no other label is true: the most probable of the others.
    assert choose_explained_outputs(predictions, 1)[0] == 0
    # No label is true: the predicted one, and the most probable of the others.
    assert choose_explained_outputs(predictions, 2) == (1, 0)


def test_the_report_shows_them_and_stays_small(run_folder, examined):
    evaluation = json.loads((run_folder / "evaluation.json").read_text())
    assert "Saliency maps" not in write_report(run_folder).read_text(encoding="utf-8")
    evaluation["explanations"] = explain_mistakes(replace(examined, tiles=RunTiles(run_folder)))
    evaluation["explanations"]["images"] *= 20
    (run_folder / "evaluation.json").write_text(json.dumps(evaluation))
    page = write_report(run_folder).read_text(encoding="utf-8")
    assert "Saliency maps" in page
    assert page.count('alt="Grad-CAM for blue"') == page.count('alt="occlusion for red"') == MAX_SHOWN
    assert "24 of the 60 worst mistakes" in page
    assert len(page.encode()) < 5_000_000

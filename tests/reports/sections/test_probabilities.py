import json

import numpy as np
import pytest
from examined import examined_of

from imagetune.core.files import write_json
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import EvaluatedSplit
from imagetune.evaluation.predictions import read_predictions
from imagetune.evaluation.probabilities.calibration import describe_calibration
from imagetune.evaluation.probabilities.conformal import describe_conformal
from imagetune.evaluation.probabilities.costs import describe_costs
from imagetune.evaluation.probabilities.operating_point import describe_operating_point
from imagetune.evaluation.probabilities.roc_curves import analyse_curves
from imagetune.evaluation.probabilities.selective import analyse_selective_prediction
from imagetune.recipe.sections.evaluate import OperatingPointConfig
from imagetune.reports.run.report import render_report
from imagetune.reports.sections.probabilities import (
    view_calibration,
    view_conformal_prediction,
    view_probability_curves,
    view_selective_prediction,
)
from imagetune.run_folder.reader import read_run

HEADINGS = (
    "Operating point for birds",
    "Misclassification costs",
    "Calibration",
    "Selective prediction",
    "Conformal prediction sets",
    "ROC and precision-recall curves",
)


def examine(folder):
    """Return a run folder's predictions with a recipe that asks for everything."""
    run = read_run(folder)
    classes = len(run.evaluation["class_names"])
    costs = tuple(tuple(float(row != column) for column in range(classes)) for row in range(classes))
    asked = {"costs": costs, "operating_point": OperatingPointConfig(positive="birds")}
    recipe = run.recipe.model_copy(update={"evaluate": run.recipe.evaluate.model_copy(update=asked)})
    splits = {}
    for name in ("val", "test"):
        found = read_predictions(folder / "predictions" / f"{name}.csv")
        truth = [true for true, _ in found.texts()]
        records = [Record(path, label, name, None) for path, label in zip(found.paths, truth, strict=True)]
        splits[name] = EvaluatedSplit(records, found, None)
    return examined_of(None, recipe, splits, run.images_root, folder)


@pytest.fixture
def told(run_folder, evaluation):
    """A run folder whose evaluation.json has every part about probabilities."""
    run = examine(run_folder)
    parts = {
        "calibration": describe_calibration(run),
        "selective_prediction": analyse_selective_prediction(run),
        "conformal": describe_conformal(run),
        "curves": analyse_curves(run),
        "costs": describe_costs(run),
        "operating_point": describe_operating_point(run),
    }
    write_json(run_folder / "evaluation.json", evaluation | parts)
    return run_folder


def with_part(folder, name, change):
    document = json.loads((folder / "evaluation.json").read_text())
    change(document[name])
    write_json(folder / "evaluation.json", document)
    return read_run(folder)


def test_every_part_has_its_section_with_drawings(told):
    page = render_report(read_run(told))
    for heading in HEADINGS:
        assert f"<h2>{heading}</h2>" in page
    for drawing in ("Reliability, test", "Reliability, validation", "Risk-coverage curve", "Prediction set sizes"):
        assert f'aria-label="{drawing}"' in page
    assert 'aria-label="ROC curves"' in page
    assert len(page) < 1_500_000


def test_old_runs_have_none(run_folder):
    page = render_report(read_run(run_folder))
    assert not [heading for heading in HEADINGS if f"<h2>{heading}</h2>" in page]


def test_the_verdict_follows_the_interval(told):
    def sure(low, high):
        def change(part):
            part["splits"]["test"]["before"]["overconfidence"] |= {"low": low, "high": high}

        return change

    assert view_calibration(with_part(told, "calibration", sure(0.02, 0.1)))["verdict"].startswith(
        "The model is overconfident."
    )
    assert view_calibration(with_part(told, "calibration", sure(-0.1, -0.02)))["verdict"].startswith(
        "The model is underconfident."
    )
    assert view_calibration(with_part(told, "calibration", sure(-0.1, 0.1)))["verdict"].startswith(
        "The model is neither"
    )


def test_a_missing_temperature_is_said(told):
    def without(part):
        part["temperature"] = {"value": None, "low": None, "high": None, "reason": "8 images are too few"}
        for split in part["splits"].values():
            split |= {"after": None, "gain": None}

    page = render_report(with_part(told, "calibration", without))
    assert "There is no temperature: 8 images are too few." in page
    assert "test, with temperature" not in page


def test_coverage_below_the_target_is_reported(told):
    def missed(part):
        part["covered"] = {"value": 0.7, "low": 0.6, "high": 0.8}

    assert view_conformal_prediction(with_part(told, "conformal", missed))["verdict"].startswith("significantly less")


def test_at_most_eight_classes_are_named_the_worst_ones(told):
    view = view_probability_curves(read_run(told))
    values = [row["average_precision"]["value"] for row in view["classes"]]
    assert values == sorted(values)
    assert view["left_out"] == max(len(values) - 8, 0)


def test_class_names_are_no_markup_and_no_formula(told):
    document = json.loads((told / "evaluation.json").read_text())
    text = json.dumps(document).replace('"birds"', '"<b>$x^$"')
    write_json(told / "evaluation.json", json.loads(text))
    for path in (told / "predictions").glob("*.csv"):
        path.write_text(path.read_text().replace(",birds", ",<b>$x^$"))
    page = render_report(read_run(told))
    assert "&lt;b&gt;$x^$" in page
    assert "<b>$x^$" not in page


def test_the_diamonds_of_selective_prediction_are_those_of_the_table(told):
    view = view_selective_prediction(read_run(told))
    assert view["drawing"].svg.startswith("<svg")
    assert np.isfinite(view["aurc"]["value"])

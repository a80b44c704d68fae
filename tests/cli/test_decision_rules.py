"""`imagetune predict` with what validation has settled: calibrated probabilities, sets, the operating point."""

import csv
import json
import shutil

import numpy as np
import pytest

from imagetune.evaluation.probabilities.temperature import apply_temperature
from imagetune.model.manifest import update_manifest

SETTLED = {
    "temperature": 2.5,
    "conformal": {"method": "least_ambiguous", "coverage": 0.9, "threshold": 0.2},
    "operating_point": {"positive": "red", "threshold": 0.0},
    "costs": [[0, 1, 1], [1, 0, 1], [9, 9, 0]],
}


@pytest.fixture
def settled(fitted, workplace):
    """A finished run whose manifest has a temperature, a rule for sets and an operating point."""
    copy = workplace / "settled"
    shutil.copytree(fitted[1], copy)
    update_manifest(copy, SETTLED)
    return copy


def lines(outcome):
    assert outcome.code == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def rows(found):
    return np.array([list(line["probabilities"].values()) for line in found])


def test_by_default_the_model_predicts_as_it_is(settled, fitted, images, imagetune):
    plain = lines(imagetune("predict", fitted[1], images, "--json"))
    found = lines(imagetune("predict", settled, images, "--json"))
    np.testing.assert_allclose(rows(found), rows(plain), atol=1e-6)
    assert [line["label"] for line in found] == [line["label"] for line in plain]
    assert not {"prediction_set", "interval"} & set(found[0])


def test_calibrated_probabilities_are_those_at_the_temperature_and_no_label_changes(settled, images, imagetune):
    plain = lines(imagetune("predict", settled, images, "--json"))
    found = lines(imagetune("predict", settled, images, "--json", "--calibrated"))
    np.testing.assert_allclose(rows(found), apply_temperature(rows(plain), 2.5, "single_label"), atol=1e-6)
    assert [line["label"] for line in found] == [line["label"] for line in plain]


def test_sets_name_what_reaches_the_threshold_the_likeliest_first(settled, images, workplace, imagetune):
    found = lines(imagetune("predict", settled, images, "--json", "--sets", "--calibrated"))
    plain = lines(imagetune("predict", settled, images, "--json"))
    for line, told in zip(found, plain, strict=True):
        falling = sorted(told["probabilities"], key=told["probabilities"].get, reverse=True)
        assert line["prediction_set"] == [name for name in falling if told["probabilities"][name] >= 0.2]
        assert line["prediction_set"][0] == line["label"]
    out = workplace / "out.csv"
    assert imagetune("predict", settled, images, "--sets", "--csv", out).code == 0
    with out.open(newline="") as file:
        told = list(csv.DictReader(file))
    assert list(told[0]) == ["path", "label", "blue", "green", "red", "prediction_set", "error"]
    assert [row["prediction_set"].split(";") for row in told] == [line["prediction_set"] for line in found]
    screen = imagetune("predict", settled, images, "--sets").out.splitlines()
    assert screen[0].endswith("{" + ", ".join(found[0]["prediction_set"]) + "}")


def test_the_operating_point_predicts_the_class_that_matters(settled, images, imagetune):
    found = lines(imagetune("predict", settled, images, "--json", "--operating-point"))
    assert {line["label"] for line in found} == {"red"}
    update_manifest(settled, {"operating_point": {"positive": "red", "threshold": 1.0}})
    found = lines(imagetune("predict", settled, images, "--json", "--operating-point"))
    assert "red" not in {line["label"] for line in found}


def test_the_prediction_of_min_expected_cost_is_by_calibrated_probabilities(settled, images, imagetune):
    plain = lines(imagetune("predict", settled, images, "--json"))
    found = lines(imagetune("predict", settled, images, "--json", "--min-cost"))
    np.testing.assert_allclose(rows(found), rows(plain), atol=1e-6)
    expected = apply_temperature(rows(plain), 2.5, "single_label") @ np.array(SETTLED["costs"], float)
    names = list(plain[0]["probabilities"])
    assert [line["label"] for line in found] == [names[place] for place in expected.argmin(axis=1)]
    assert [line["label"] for line in found] != [line["label"] for line in plain]
    both = imagetune("predict", settled, images, "--min-cost", "--operating-point")
    assert both.code == 2
    assert "give one of them" in both.err


@pytest.mark.parametrize("option", ["--calibrated", "--sets", "--operating-point", "--min-cost"])
def test_what_the_manifest_lacks_is_refused(settled, images, imagetune, option):
    update_manifest(settled, dict.fromkeys(SETTLED))
    outcome = imagetune("predict", settled, images, option)
    assert outcome.code == 9
    assert outcome.err.startswith(f"error[model-file] {option}: the model has no")
    assert len(outcome.err.splitlines()) == 1


def test_several_runs_have_none_of_it(settled, images, imagetune):
    outcome = imagetune("predict", settled, images, "--with", settled, "--calibrated")
    assert outcome.code == 2
    assert "need a single run" in outcome.err


def test_a_fit_settles_what_its_few_validation_images_allow(fitted):
    place, run = fitted
    document = json.loads((place / run / "evaluation.json").read_text())
    manifest = json.loads((place / run / "model" / "manifest.json").read_text())
    assert manifest["temperature"] is document["calibration"]["temperature"]["value"] is None
    assert "too few" in document["calibration"]["temperature"]["reason"]
    kept = {name: document["conformal"][name] for name in ("method", "coverage", "threshold")}
    assert manifest["conformal"] == kept
    assert manifest["operating_point"] is None
    assert {"selective_prediction", "curves"} <= set(document)
    page = (place / run / "report.html").read_text()
    assert "<h2>Calibration</h2>" in page
    assert "Each class against the rest" in page

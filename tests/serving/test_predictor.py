"""What the process that holds the model answers for each kind of task."""

import pytest
from served import make_untrained_run

from imagetune.serving.predictor import describe_model, explain_upload, open_predictor, predict_uploads

TASKS = {
    "single_label": {
        "conformal": {"method": "least_ambiguous", "coverage": 0.9, "threshold": 0.1},
        "out_of_distribution": {"score": "energy", "threshold": -1e9, "share": 0.05},
    },
    "multi_label": {"conformal": {"method": "risk_control", "coverage": 0.9, "threshold": 0.2}},
    "regression": {
        "class_names": ("age",),
        "conformal": {"method": "absolute_residual", "coverage": 0.9, "threshold": 2.0},
    },
}


@pytest.fixture(scope="module", params=TASKS)
def predictor(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return open_predictor(make_untrained_run(folder, task=request.param, **TASKS[request.param]))


def test_each_task_is_answered_as_by_the_command(predictor, files):
    found = predict_uploads(predictor, list(files.items()))
    task = describe_model(predictor)["task"]
    for each in found:
        assert each["error"] is None
        if task == "regression":
            assert (each["probability"], each["probabilities"], each["prediction_set"]) == (None, {}, None)
            assert float(each["label"]) == each["value"]
            assert each["interval"] == pytest.approx([each["value"] - 2, each["value"] + 2])
        elif task == "multi_label":
            chosen = [name for name, share in each["probabilities"].items() if share >= 0.5]
            assert each["label"] == ";".join(sorted(chosen))
            assert set(each["prediction_set"]) == {n for n, share in each["probabilities"].items() if share >= 0.2}
        else:
            assert each["probability"] == max(each["probabilities"].values())
            assert each["out_of_distribution"] is True
            assert each["prediction_set"][0] == each["label"]


def test_images_of_which_none_can_be_read_need_no_model(predictor):
    first, second = predict_uploads(predictor, [("a.png", b""), ("b.png", b"text")])
    assert (first["name"], first["label"], first["error"]["status"]) == ("a.png", None, 422)
    assert second["error"]["message"] == "is not an image that can be read"


def test_an_image_that_cannot_be_read_cannot_be_explained(predictor):
    assert explain_upload(predictor, ("a.png", b"text"))["error"]["code"] == "unreadable_image"

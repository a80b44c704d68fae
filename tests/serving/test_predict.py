"""Predictions over HTTP are those of `imagetune predict`, however the images come."""

import base64
import json

import pytest

from imagetune.serving.settings import LOOPBACK, ServerSettings


@pytest.fixture(scope="module")
def expected(untrained_run, files, tmp_path_factory):
    """What `imagetune predict --sets --json` says of the same files, by name."""
    from imagetune.commands.predict import predict
    from imagetune.evaluation.image_predictions import DecisionRules

    folder = tmp_path_factory.mktemp("files")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    found = predict(str(untrained_run), [str(folder)], DecisionRules(sets=True))
    return {prediction.path.rpartition("/")[2]: prediction for prediction in found}


def as_json(files):
    images = [{"name": name, "base64": base64.b64encode(data).decode()} for name, data in files.items()]
    return json.dumps({"images": images}).encode()


def require_equal(found, expected):
    assert found["label"] == expected.label
    assert found["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    assert found["probability"] == found["probabilities"][found["label"]]
    assert tuple(found["prediction_set"]) == expected.prediction_set
    assert found["out_of_distribution"] is expected.out_of_distribution
    assert found["out_of_distribution_score"] == pytest.approx(expected.out_of_distribution_score, abs=1e-4)
    assert found["error"] is None


def test_files_of_a_form_are_predicted_as_by_the_command(served, files, expected):
    reply = served.send_files(files)
    predictions = reply.json()["predictions"]
    assert [found["name"] for found in predictions] == list(files)
    for found in predictions:
        require_equal(found, expected[found["name"]])
    # Other images than each other, or nothing would have been shown.
    assert len({tuple(found["probabilities"].values()) for found in predictions}) == len(files)


def test_base64_in_json_is_the_same(served, files, expected):
    for found in served.send("/v1/predict", as_json(files), "application/json").json()["predictions"]:
        require_equal(found, expected[found["name"]])


@pytest.mark.parametrize("name", ["turned.jpg", "clear.png"])
def test_an_image_as_the_body_is_the_same(served, files, expected, name):
    (found,) = served.send("/v1/predict", files[name], "image/png").json()["predictions"]
    require_equal(found, expected[name])


def test_an_image_of_several_that_cannot_be_read_has_an_error_of_its_own(served, files, expected):
    mixed = {"plain.png": files["plain.png"], "cut.png": files["plain.png"][:300], "grey.webp": files["grey.webp"]}
    first, cut, last = served.send_files(mixed).json()["predictions"]
    require_equal(first, expected["plain.png"])
    require_equal(last, expected["grey.webp"])
    assert (cut["label"], cut["probabilities"], cut["error"]["code"]) == (None, {}, "unreadable_image")


def test_names_are_answered_without_folders(served, files):
    (found,) = served.send_files({"../../etc/plain.png": files["plain.png"]}).json()["predictions"]
    assert found["name"] == "plain.png"


def test_replies_name_the_model(served, files, untrained_run):
    manifest = json.loads((untrained_run / "model" / "manifest.json").read_text())
    named = served.send_files({"a.png": files["plain.png"]}).json()["model"]
    assert named == {"id": "run", "version": manifest["weights_sha256"][:12]}


def test_the_model_is_described_with_its_card_and_metrics(served, untrained_run):
    document = served.send("/v1/model").json()
    assert document["metrics"] == {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    assert (document["split"], document["card"], document["coverage"]) == ("test", "# A card\n", 0.9)
    assert served.send("/v1/labels").json() == {"task": "single_label", "labels": ["blue", "green", "red"]}
    assert str(untrained_run.parent) not in json.dumps(document)


def test_the_interface_describes_itself_by_an_example_that_is_answered(served):
    document = served.send("/openapi.json").json()
    post = document["paths"]["/v1/predict"]["post"]
    example = post["requestBody"]["content"]["application/json"]["example"]
    reply = served.send("/v1/predict", json.dumps(example).encode(), "application/json").json()
    shown = post["responses"]["200"]["content"]["application/json"]["example"]
    assert set(reply["predictions"][0]) == set(shown["predictions"][0])
    assert set(shown["predictions"][0]["probabilities"]) == {"blue", "green", "red"}


def test_requests_are_counted_and_logged_without_names(served, files):
    served.send_files({"secret-name.png": files["plain.png"]})
    text = served.send("/metrics").body.decode()
    assert 'imagetune_requests_total{path="/v1/predict",status="200"}' in text
    assert "imagetune_workers_ready 1.0" in text
    assert "secret-name" not in served.log.read_text()
    last = [event for event in served.events() if event.get("path") == "/v1/predict"][-1]
    assert (last["status"], last["images"], last["bytes"]) == (200, 1, len(files["plain.png"]))


def test_what_is_not_there_is_answered_in_json(served):
    assert served.send("/nothing").json()["error"]["code"] == "not_found"
    reply = served.send("/v1/predict")
    assert (reply.status, reply.json()["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("header", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}])
def test_a_page_of_the_web_is_not_answered(served, header):
    reply = served.send("/v1/model", **header)
    assert (reply.status, reply.json()["error"]["code"]) == (403, "other_host")
    assert served.send("/v1/model", Origin=f"http://localhost:{served.port}").status == 200


def test_a_proxys_name_and_a_token_open_the_server():
    assert ServerSettings().answered_hosts == LOOPBACK
    assert ServerSettings(host_names=("Models.example",)).answered_hosts == (*LOOPBACK, "models.example")
    assert ServerSettings(token="t" * 16).answered_hosts == ServerSettings(host="0.0.0.0").answered_hosts == ()

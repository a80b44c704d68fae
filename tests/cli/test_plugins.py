"""Plug-ins of an installed package, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from plugin_packages import install_example, write_metadata

from imagetune.core.files import read_json_lines

ROOT = Path(__file__).parents[2]
RECIPE = """\
name: plugged
seed: 3
data:
  source: {source}
  image_size: 32
  workers: 1
  augmentation: small_shifts
model: {{backbone: tiny_net, weights: random}}
train:
  batch_size: 16
  loss: poly_loss
  cache: "off"
  stages:
    - {{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-2}}
    - {{name: top, unfreeze: block2, epochs: 2, learning_rate: 1e-2, augmentation: medium}}
evaluate: {{bootstrap_samples: 100}}
tracking: {{tracker: [mlflow, csv_log]}}
"""


@pytest.fixture(scope="module")
def plugged(tmp_path_factory, images):
    """A run of a recipe with four plug-ins, by a process of its own: (working folder, site of the package, stderr)."""
    place, site = tmp_path_factory.mktemp("plugged"), install_example(tmp_path_factory.mktemp("site"))
    (place / "plugged.yaml").write_text(RECIPE.format(source=images), encoding="utf-8")
    command = [sys.executable, "-m", "imagetune", "fit", "plugged.yaml", "--run-dir", "run"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
    variables["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(site)))
    done = subprocess.run(command, cwd=place, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place, site, done.stderr


@pytest.fixture
def installed(plugged, monkeypatch):
    """The working folder, with the package on this process's path."""
    place, site, _ = plugged
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(place)
    return place


def test_a_process_of_its_own_fits_and_makes_the_store(plugged):
    place, _, told = plugged
    assert json.loads((place / "run/status.json").read_text())["state"] == "finished"
    assert "epoch   3" in told
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place / 'mlflow.db'}")
    (recorded,) = client.search_runs([client.get_experiment_by_name("plugged").experiment_id])
    assert recorded.info.status == "FINISHED"


def test_a_run_uses_four_plugins_and_says_whose_they_are(plugged):
    run = plugged[0] / "run"
    assert json.loads((run / "lock.json").read_text())["plugins"] == {
        "imagetune.backbones": {"tiny_net": "imagetune-example 1.2"},
        "imagetune.losses": {"poly_loss": "imagetune-example 1.2"},
        "imagetune.augmentations": {"small_shifts": "imagetune-example 1.2"},
        "imagetune.trackers": {"csv_log": "imagetune-example 1.2"},
    }
    manifest = json.loads((run / "model" / "manifest.json").read_text())
    assert (manifest["config"]["backbone"], manifest["backbone_package"]) == ("tiny_net", "imagetune-example 1.2")


def test_a_tracker_hears_of_every_epoch_and_of_the_end_beside_mlflow(plugged):
    run = plugged[0] / "run"
    lines = (run / "log.csv").read_text().splitlines()
    losses = [f"{line['epoch']},{line['val']['loss']:.4f}" for line in read_json_lines(run / "metrics.jsonl")]
    assert lines == ["epoch,val_loss", *losses, "# finished"]
    assert len(losses) == 3
    assert json.loads((run / "tracking.json").read_text())["run_id"]


def test_a_finished_run_is_evaluated_and_predicts(installed, imagetune, images):
    evaluated = imagetune("evaluate", "run", "--json")
    assert evaluated.code == 0, evaluated.err
    written = json.loads((installed / "run" / "evaluation.json").read_text())
    metrics = [content["splits"]["test"]["metrics"]["accuracy"]["value"] for content in (evaluated.json(), written)]
    assert metrics[0] == metrics[1]
    predicted = imagetune("predict", "run", images, "--json")
    assert predicted.code == 0, predicted.err
    assert len(predicted.out.splitlines()) == 30


def test_a_model_without_its_package_says_which_is_missing(plugged, imagetune, images, monkeypatch):
    monkeypatch.chdir(plugged[0])
    outcome = imagetune("predict", "run", images)
    assert outcome.code == 5
    assert "its backbone 'tiny_net' is a plug-in of the package imagetune-example 1.2, which is not installed" in (
        outcome.err
    )


def test_plugins_are_listed_where_names_are(installed, imagetune):
    rows = {row["name"]: row for row in json.loads(imagetune("model", "list", "--json").out)}
    assert (rows["tiny_net"]["parameters"], rows["tiny_net"]["weights"]) == (1392, "absent")
    blocks = imagetune("model", "layers", "tiny_net").out
    assert "block1" in blocks
    assert "block2" in blocks
    schema = imagetune("recipe", "schema").out
    assert all(f'"{name}"' in schema for name in ("tiny_net", "poly_loss", "small_shifts", "csv_log"))


def test_validate_imports_no_keras_for_plugins(plugged):
    place, site, _ = plugged
    code = (
        "import sys\n"
        "from imagetune.cli.main import run\n"
        "assert run(['recipe', 'validate', 'plugged.yaml']) == 0\n"
        "print(sorted({'keras', 'imagetune_example.losses', 'imagetune_example.trackers'} & set(sys.modules)))\n"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, env=variables, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["plugged.yaml: valid (2 stages)", "[]"], done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.loss=poly_los", "did you mean 'poly_loss'?"),
        ("data.augmentation=smal_shifts", "did you mean 'small_shifts'?"),
        ("model.backbone=tinynet", "did you mean 'tiny_net'?"),
        ("tracking.tracker=csvlog", "did you mean 'csv_log'?"),
        ("model.weights=imagenet", "tiny_net comes without pretrained weights"),
    ],
)
def test_mistakes_about_plugins_are_reported_like_others(installed, imagetune, override, message):
    key, _, value = override.partition("=")
    outcome = imagetune("fit", "plugged.yaml", "-o", f"{key}={value}", "--run-dir", "other")
    assert outcome.code == (5 if key == "model.weights" else 2)
    assert message in outcome.err
    assert not (installed / "other").exists()


def test_a_plugin_with_a_name_of_ours_is_refused(recipe, imagetune, tmp_path, monkeypatch):
    groups = {"imagetune.backbones": {"efficientnet_lite0": "x:y"}, "imagetune.augmentations": {"light": "x:y"}}
    monkeypatch.syspath_prepend(write_metadata(tmp_path / "site", "rival", "3", groups))
    outcome = imagetune("recipe", "validate", recipe, "-o", "data.augmentation=light")
    assert outcome.code == 2
    assert "the augmentation preset 'light' is offered twice: by imagetune itself and by the package rival 3" in (
        outcome.err
    )
    outcome = imagetune(
        "recipe", "validate", recipe, "-o", "data.augmentation=none", "-o", "model.backbone=efficientnet_lite0"
    )
    assert outcome.code == 2
    assert "the backbone 'efficientnet_lite0' is offered twice: by imagetune itself and by the package rival 3" in (
        outcome.err
    )

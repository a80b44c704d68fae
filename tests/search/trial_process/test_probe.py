"""The probe of a backbone, run in this process on small images with random weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from imagetune.core.messages import say_nothing
from imagetune.data.splits.holdout import open_holdout
from imagetune.errors import StoppedError, WeightsError
from imagetune.recipe.loading import load_recipe
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import read_data
from imagetune.search.executors.protocol import Task
from imagetune.search.trial_process.probe import run_probe, split_into_probe_folds
from imagetune.search.trial_process.probe_file import read_probe
from imagetune.search.trial_process.shared import Shared
from imagetune.training.setup.stopping import StopRequest

RECIPE = """\
seed: 3
data: {source: SOURCE, image_size: 32, workers: 0, split: {val: 0.2, test: 0.2}}
model: {backbone: mobilenet_v3_small, weights: WEIGHTS}
search: {algorithm: bakeoff, objective: accuracy, folds: 3}
"""


def prepared(folder, images, weights="random"):
    """A recipe on a copy of the images of its own, and their splits."""
    source = folder / "images"
    shutil.copytree(images, source)
    path = folder / "bakeoff.yaml"
    path.write_text(RECIPE.replace("SOURCE", str(source)).replace("WEIGHTS", weights))
    recipe = load_recipe(path).recipe
    data = read_data(recipe, say=say_nothing)
    return recipe, Shared(data, recipe.search), Task("001", folder / "trial", recipe, probe=True)


@pytest.fixture(scope="module")
def probed(tmp_path_factory, images):
    """A probe for which no test image was there to be read."""
    recipe, shared, task = prepared(tmp_path_factory.mktemp("probe"), images)
    for record in open_holdout(shared.data.splits):
        Path(record.path).unlink()
    return recipe, shared, run_probe(shared, task, StopRequest()), task.folder


def test_the_metric_is_the_mean_of_the_folds(probed):
    _, _, outcome, folder = probed
    document = read_probe(folder)
    metrics = [fold["metrics"]["accuracy"] for fold in document["folds"]]
    assert outcome.status == "completed"
    assert outcome.objective == document["value"] == pytest.approx(np.mean(metrics))
    # The folds agree, which leaves no interval.
    assert len(set(metrics)) == 1
    assert (document["low"], document["high"], document["method"]) == (None, None, "")
    assert RunFolder(folder).read_status()["state"] == "finished"


def test_the_probe_distinguishes_colours(probed):
    assert probed[2].objective > 0.8


def test_each_training_and_validation_image_is_left_out_once(probed):
    recipe, shared, _, folder = probed
    splits = shared.data.splits
    document = read_probe(folder)
    assert sum(fold["left_out"] for fold in document["folds"]) == document["images"]
    assert document["images"] == len(splits.train) + len(splits.val) > 0
    left_out = [record.path for fold in split_into_probe_folds(shared.data, recipe) for record in open_holdout(fold)]
    assert sorted(left_out) == sorted(record.path for record in (*splits.train, *splits.val))
    assert not set(left_out).intersection(record.path for record in open_holdout(splits))


def test_the_cost_is_measured(probed):
    cost = read_probe(probed[3])["cost"]
    assert cost["parameters"] == 939_120 + 3 * (576 + 1)
    assert cost["megabytes"] == pytest.approx(4 * cost["parameters"] / 1e6)
    for name in ("milliseconds_one", "milliseconds_batch"):
        assert 0 < cost[name]["value"] <= cost[name]["median"] <= cost[name]["max"]
    assert cost["milliseconds_batch"]["value"] < cost["milliseconds_one"]["value"]


def test_unavailable_weights_are_the_trials_failure(tmp_path, images):
    _, shared, task = prepared(tmp_path, images, weights="gone.weights.h5")
    with pytest.raises(WeightsError):
        run_probe(shared, task, StopRequest())
    assert RunFolder(task.folder).read_status()["state"] == "failed"
    assert read_probe(task.folder) is None


def test_a_signal_ends_it(tmp_path, images):
    _, shared, task = prepared(tmp_path, images)
    stop = StopRequest()
    with stop.deferred():
        stop.receive(15)
    with pytest.raises(StoppedError):
        run_probe(shared, task, stop)


def test_a_corrupted_file_is_none(tmp_path):
    (tmp_path / "probe.json").write_text("{")
    assert read_probe(tmp_path) is None
    (tmp_path / "probe.json").write_text(json.dumps({"format_version": 0}))
    assert read_probe(tmp_path) is None

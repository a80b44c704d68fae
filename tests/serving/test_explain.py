import base64
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image
from served import CLASSES

from imagetune.data.loading.decode import load_image
from imagetune.evaluation.predict import predict_arrays
from imagetune.model.manifest import load_model
from imagetune.run_folder.folder import RunFolder
from imagetune.serving.explain import PIXELS, explain_image
from imagetune.serving.training_images import MAX_IMAGES, read_training_images

COUNTS = {"blue": 40, "green": 3, "red": MAX_IMAGES}


@pytest.fixture(scope="module")
def loaded(untrained_run):
    return load_model(untrained_run)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of training images, of which few are green; each has a pattern of its own."""
    root, random = tmp_path_factory.mktemp("training"), np.random.default_rng(0)
    for label, count in COUNTS.items():
        (root / label).mkdir()
        for number in range(count):
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(untrained_run, images, tmp_path_factory):
    """The folder of a run that was trained on these images."""
    folder = RunFolder(tmp_path_factory.mktemp("trained") / "run")
    shutil.copytree(untrained_run, folder.path)
    folder.recipe.write_text(f"name: served\ndata: {{source: {images}}}\n")
    rows = [f"{path.relative_to(images)},{path.parent.name},train,\n" for path in sorted(images.glob("*/*.png"))]
    folder.splits.write_text("path,label,split,group\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def training(run, loaded):
    return read_training_images(run, loaded)


def decode(address):
    kind, _, text = address.partition(",")
    return kind, cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)


def test_the_predicted_class_is_explained_by_an_image_of_what_speaks_for_it(loaded):
    images = np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), np.uint8)
    found = [explain_image(loaded, image) for image in images]
    assert [one["target"] for one in found] == [one.label for one in predict_arrays(loaded, list(images))]
    kind, shown = decode(found[0]["saliency"])
    assert kind == "data:image/png;base64"
    assert shown.shape == (PIXELS, PIXELS, 3)
    # Colour is heat: the image itself is grey.
    assert (np.ptp(shown.astype(int), axis=2) > 30).any() == found[0]["found"]


def test_a_training_image_is_nearest_to_itself(loaded, training):
    for label in CLASSES:
        (path, *_) = [record.path for record in training.records if record.label == label]
        nearest = training.find(load_image(path, loaded.image, max_pixels=loaded.max_pixels))
        assert nearest["label"] == label
        assert nearest["similarity"] == pytest.approx(1.0, abs=1e-5)
        assert decode(nearest["thumbnail"])[0] == "data:image/jpeg;base64"


def test_rare_labels_are_all_compared_and_no_more_than_bounded(training):
    labels = [record.label for record in training.records]
    assert len(labels) == MAX_IMAGES
    assert {label: labels.count(label) for label in ("blue", "green")} == {"blue": 40, "green": 3}


def test_images_that_are_gone_are_not_shown(loaded, run, images, tmp_path):
    moved, elsewhere = RunFolder(tmp_path / "run"), shutil.copytree(images / "green", tmp_path / "moved" / "green")
    shutil.copytree(run.path, moved.path)
    moved.recipe.write_text(f"name: served\ndata: {{source: {elsewhere.parent}}}\n")
    training = read_training_images(moved, loaded)
    assert {record.label for record in training.records} == {"green"}
    image = load_image(training.records[0].path, loaded.image, max_pixels=loaded.max_pixels)
    shutil.rmtree(elsewhere)
    assert training.find(image) is None
    assert read_training_images(moved, loaded) is None

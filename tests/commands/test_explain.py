"""Which images are explained for which output, and where their files go, with stub saliency maps."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from imagetune.commands import explain as command
from imagetune.errors import DataError, RecipeError
from imagetune.evaluation.explain.saliency import SaliencyMap
from imagetune.recipe.sections.data import ImageSettings

SETTINGS = ImageSettings(height=32, width=32, resize="pad", background=(0, 0, 0))
HEAT = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)


def model(task="single_label", names=("blue", "green", "red")):
    return SimpleNamespace(task=task, class_names=names, image=SETTINGS, max_pixels=10**6, tta=(), model=None)


@pytest.fixture
def explained(monkeypatch):
    """The outputs that saliency was computed for; every image is predicted as the second output."""
    outputs = []

    def compute(split, images, targets):
        outputs.extend(targets[:, 0].tolist())
        return [(SaliencyMap(int(target), HEAT, HEAT, 0.5),) for target in targets[:, 0]]

    def predict(model, batches, *, tta):
        rows = sum(len(batch.images) for batch in batches)
        return np.tile(np.array([[0.2, 0.7, 0.1]], np.float32), (rows, 1))

    monkeypatch.setattr(command, "split_for_saliency", lambda model: None)
    monkeypatch.setattr(command, "compute_saliency", compute)
    monkeypatch.setattr(command, "predict_probabilities", predict)
    return outputs


def test_the_predicted_class_is_explained_unless_another_is_named(explained, images, tmp_path):
    image = str(images / "red" / "red00.png")
    (found,) = command.explain_images(model(), [image], out=tmp_path)
    assert (found.path, found.target, found.agreement, found.error) == (image, "green", 0.5, None)
    assert found.probability == pytest.approx(0.7)
    height, width, _ = cv2.imread(found.file).shape
    assert (height, width) == (command.PANEL_PIXELS, 3 * command.PANEL_PIXELS + 2 * 8)
    (found,) = command.explain_images(model(), [image], out=tmp_path, target="red")
    assert (found.target, explained) == ("red", [1, 2])


def test_a_regression_is_explained_in_a_direction(explained, images, tmp_path, monkeypatch):
    number = np.array([[12.5]], np.float32)
    monkeypatch.setattr(command, "predict_probabilities", lambda *_, **__: number)
    regressor, image = model("regression", ("age",)), str(images / "red" / "red00.png")
    for target, shown in ((None, "higher"), ("higher", "higher"), ("lower", "lower")):
        (found,) = command.explain_images(regressor, [image], out=tmp_path, target=target)
        assert (found.target, found.probability, found.value) == (shown, None, 12.5)
    with pytest.raises(RecipeError, match="this run predicts numbers: use higher or lower"):
        next(command.explain_images(regressor, [image], out=tmp_path, target="red"))


def test_arrays_are_named_by_their_position(explained, tmp_path):
    arrays = [np.zeros((20, 30, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)]
    found = list(command.explain_images(model(), arrays, out=tmp_path))
    assert [one.path for one in found] == ["images[0]", "images[1]"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image-0.jpg", "image-1.jpg"]


def test_images_of_which_none_can_be_read_are_an_error_after_their_reasons(explained, tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"no image")
    monkeypatch.setattr(command, "open_run", lambda run: (None, model()))
    found = command.explain("runs/a", [str(tmp_path / "a.png")], out=tmp_path / "out")
    assert "not an image" in next(found).error
    with pytest.raises(DataError, match="none of the images can be read"):
        next(found)


def test_what_is_passed_over_in_a_folder_is_said(explained, images, tmp_path):
    folder = shutil.copytree(images / "red", tmp_path / "mixed")
    (folder / "notes.txt").write_text("no image")
    told = []
    found = list(
        command.explain_images(model(), [str(folder)], out=tmp_path / "out", say=lambda *said: told.append(said))
    )
    assert len(found) == len(list(folder.glob("*.png")))
    assert any("notes.txt" in text for _, text in told)

"""RUN/predict.py, which has Keras and Pillow alone, against our own decoder, labels and predictions."""

from __future__ import annotations

import ast
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from imagetune.data.loading.decode import load_image
from imagetune.data.loading.formats import FORMATS
from imagetune.evaluation.image_predictions import build_image_predictions
from imagetune.evaluation.predict import predict_images
from imagetune.model.build import build_model
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import load_model, read_manifest, save_model
from imagetune.model.out_of_distribution import (
    Detector,
    OutOfDistribution,
    feature_statistics,
    write_statistics,
)
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig
from imagetune.run_folder import plain_predict
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.plain_model import SCRIPT, build_labels, write_plain_predict

# A frame that is neither square nor a divisor of any image below, with a colour of its own.
FRAME = {"height": 48, "width": 40, "background": (10, 200, 90)}


def draw(width: int, height: int, bands: int = 3) -> np.ndarray:
    """A picture whose corners and sides differ, so that every turn and every crop shows."""
    rows, columns = np.mgrid[:height, :width]
    shades = [255 * columns / width, 255 * rows / height, 127 + 120 * np.sin(columns / 9 + rows / 5)]
    alpha = [255 * (1 - columns / width)]
    return np.stack((shades + alpha)[:bands], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def odd_images(tmp_path_factory) -> dict[str, Path]:
    """Transparent, turned, tiny, long, enlarged and reduced images, by what is odd about them."""
    folder = tmp_path_factory.mktemp("odd")
    pictures = {f"wide {size[0]}x{size[1]}.png": Image.fromarray(draw(*size)) for size in ((300, 41), (39, 47), (7, 5))}
    pictures["transparent.png"] = Image.fromarray(draw(90, 61, bands=4))
    pictures["grey with alpha.png"] = Image.fromarray(draw(90, 61, bands=4)).convert("LA")
    pictures["palette.gif"] = Image.fromarray(draw(90, 61)).convert("P")
    pictures["grey.jpg"] = Image.fromarray(draw(97, 131)).convert("L")
    pictures["large.jpg"] = Image.fromarray(draw(805, 1003))
    pictures["half.png"] = Image.fromarray(draw(80, 96))
    for name, picture in pictures.items():
        picture.save(folder / name)
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        Image.fromarray(draw(233, 120)).save(folder / f"turned {turn}.jpg", exif=exif)
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("resize", ["pad", "crop", "squash"])
def test_the_script_decodes_as_imagetune_does(odd_images, resize):
    settings = ImageSettings(resize=resize, **FRAME)
    labels = {"size": [48, 40], "resize": resize, "background": list(FRAME["background"])}
    for name, path in odd_images.items():
        ours = load_image(str(path), settings, max_pixels=10**7).astype(int)
        theirs = plain_predict.load_image(path, labels).astype(int)
        assert theirs.shape == ours.shape, name
        # OpenCV interpolates in steps of 1/2048; all else is equal to the last bit.
        assert abs(theirs - ours).max() <= 1, f"{name}: {abs(theirs - ours).max()}"


def test_deep_images_are_refused_and_not_read_in_another_way(tmp_path):
    Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / "deep.png")
    cv2.imwrite(str(tmp_path / "colour.png"), np.full((8, 8, 3), 4000, np.uint16))
    for name in ("deep.png", "colour.png"):
        with pytest.raises(ValueError, match="more than 8 bits a pixel; `imagetune predict` reads it"):
            plain_predict.load_image(tmp_path / name, {"size": [8, 8], "resize": "pad", "background": [0, 0, 0]})


def test_an_image_is_measured_before_it_is_decoded(tmp_path):
    labels = {"size": [8, 8], "resize": "pad", "background": [0, 0, 0]}
    Image.new("1", (12_000, 10_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ValueError, match="12000 x 10000 pixels, more than the 100,000,000 allowed"):
        plain_predict.load_image(str(tmp_path / "bomb.png"), labels)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(40 << 30)
    for name in ("pipe", "endless", "sparse", "missing"):
        with pytest.raises(ValueError, match="no regular file of at most 500 MB"):
            plain_predict.load_image(str(tmp_path / f"{name}.png"), labels)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("single_label", [[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]),
        ("ordinal", [[0.4, 0.2, 0.4], [0.1, 0.2, 0.7], [0.2, 0.2, 0.1]]),
        ("multi_label", [[0.6, 0.1, 0.7], [0.1, 0.1, 0.1], [0.5, 0.8, 0.9]]),
    ],
)
def test_labels_are_those_of_imagetune(task, rows):
    names = ("small", "large", "huge")
    thresholds = (0.5, 0.8, 0.7) if task == "multi_label" else ()
    loaded = LoadedModel(
        None, names, ImageSettings(**FRAME), ModelConfig(), 10**7, "", task=task, thresholds=thresholds
    )
    labels = {"task": task, "class_names": names, "thresholds": thresholds, "separator": ";"}
    for row in np.array(rows, np.float32):
        (ours,) = (one.label for one in build_image_predictions(["x"], row[None], loaded))
        assert plain_predict.name_label(row.astype(float), labels) == ours


@pytest.mark.parametrize(
    ("score", "task"), [("energy", "single_label"), ("energy", "multi_label"), ("mahalanobis", "regression")]
)
def test_out_of_distribution_scores_are_those_of_imagetune(tmp_path, score, task):
    random = np.random.default_rng(0)
    evidence, known = random.normal(size=(5, 6)), random.normal(size=(40, 6))
    statistics = feature_statistics(known, None) if score == "mahalanobis" else None
    if statistics:
        write_statistics(statistics, tmp_path)
    rule = OutOfDistribution(score=score, threshold=1.0, share=0.05)
    labels = {"task": task, "out_of_distribution": rule.model_dump()}
    scores = plain_predict.score_images({"evidence": evidence.astype(np.float32)}, labels, tmp_path)
    np.testing.assert_allclose(scores, Detector(rule, statistics).scores(evidence, task), rtol=1e-4)


def find_imports(nodes):
    lines = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name if isinstance(line, ast.Import) else line.module for line in lines for alias in line.names}
    return names - sys.stdlib_module_names


def test_the_script_needs_only_pillow_and_the_runtime_of_its_model():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    # NumPy comes with every runtime.
    assert find_imports(tree.body) == {"numpy", "PIL"}
    (opening,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "open_runtime"]
    runtimes = {"keras", "ai_edge_litert.interpreter", "onnxruntime"}
    assert find_imports(ast.walk(opening)) == runtimes
    assert find_imports(ast.walk(tree)) == {"numpy", "PIL"} | runtimes


@pytest.fixture
def run_folder(tmp_path, tiny):
    """A run's model, untrained: what the script and `imagetune predict` load."""
    folder, image = RunFolder(tmp_path / "run"), ImageSettings(**FRAME)
    config = ModelConfig(backbone="tiny", weights="random")
    model = build_model(config, num_classes=3, image_size=(48, 40))
    # A head whose answers differ: random weights give every class a third.
    kernel, bias = model.get_layer("logits").get_weights()
    model.get_layer("logits").set_weights([kernel * 20, bias])
    save_model(model, folder.model, config=config, class_names=("a", "b", "c"), image=image)
    model.save(folder.keras_file)
    write_plain_predict(folder)
    return folder


def test_the_script_predicts_what_imagetune_predicts(run_folder, odd_images, monkeypatch, capsys):
    paths = [str(path) for path in odd_images.values()]
    ours = list(predict_images(load_model(run_folder.model), paths))
    # In this process, as another one would load Keras for ten seconds.
    monkeypatch.setattr(sys, "argv", ["predict.py", *paths])
    runpy.run_path(str(run_folder.path / "predict.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for line, expected in zip(printed.splitlines(), ours, strict=True):
        path, label, shares = line.split("\t")
        assert (path, label) == (expected.path, expected.label)
        found = dict(share.rsplit(" ", 1) for share in shares.split("  "))
        assert {name: float(share) for name, share in found.items()} == pytest.approx(expected.probabilities, abs=5e-3)


def test_a_reader_that_has_seen_enough_ends_the_script_without_a_traceback(run_folder, odd_images, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    # An open file stands for the standard output, whose descriptor the script turns to nowhere.
    with pytest.raises(SystemExit, match="141"), os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, odd_images.values())])
        monkeypatch.setattr(sys, "stdout", pipe)
        runpy.run_path(str(run_folder.path / "predict.py"), run_name="__main__")


def test_the_script_names_an_unreadable_image_and_goes_on(run_folder, odd_images, tmp_path, monkeypatch, capsys):
    (tmp_path / "cut.png").write_bytes(odd_images["half.png"].read_bytes()[:200])
    paths = [str(tmp_path / "cut.png"), str(tmp_path / "missing.png"), str(odd_images["half.png"])]
    monkeypatch.setattr(sys, "argv", ["predict.py", *paths])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(run_folder.path / "predict.py"), run_name="__main__")
    assert ended.value.code == 1
    cut, missing, good = capsys.readouterr().out.splitlines()
    assert cut.startswith(f"{paths[0]}\terror: ")
    assert missing.startswith(f"{paths[1]}\terror: ")
    assert good.split("\t")[1] in ("a", "b", "c")


def test_the_script_opens_the_formats_that_imagetune_opens_but_heic():
    # HEIC needs a package, and the script has Keras and Pillow alone.
    assert tuple(name for name in FORMATS if name != "HEIF") == plain_predict.FORMATS


def test_labels_say_what_the_manifest_says(run_folder):
    manifest = read_manifest(run_folder.model)
    labels = build_labels(manifest)
    assert labels["class_names"] == list(manifest.class_names)
    assert (labels["size"], labels["resize"], labels["background"]) == ([48, 40], "pad", [10, 200, 90])

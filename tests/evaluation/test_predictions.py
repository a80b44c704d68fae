from pathlib import Path

import numpy as np
import pytest

from imagetune.data.sources.records import Record
from imagetune.errors import DataError
from imagetune.evaluation.predictions import Predictions, predict_records, read_predictions, write_predictions
from imagetune.recipe.sections.data import ImageSettings

CLIPART = Path(__file__).parents[2] / "recipes" / "clipart"
IMAGE = ImageSettings(height=32, width=32)


def some_predictions(*, names: tuple[str, ...] = ("cat", "dog")) -> Predictions:
    probabilities = np.array([[0.25, 0.75], [1 / 3, 2 / 3], [0.9, 0.1]], dtype=np.float32).astype(np.float64)
    return Predictions(
        ("/data/a.png", "/data/sub/b, 'c'.png", "/elsewhere/ü.png"), np.array([0, 1, -1]), probabilities, names
    )


def test_what_is_written_reads_back_exactly(tmp_path):
    predictions = some_predictions()
    write_predictions(predictions, tmp_path / "new" / "test.csv")
    again = read_predictions(tmp_path / "new" / "test.csv")
    assert again.paths == predictions.paths
    assert again.class_names == predictions.class_names
    assert again.labels.tolist() == [0, 1, -1]
    np.testing.assert_array_equal(again.probabilities.astype(np.float32), predictions.probabilities.astype(np.float32))


def test_the_file_has_path_label_predicted_and_a_column_a_class(tmp_path):
    write_predictions(some_predictions(), tmp_path / "test.csv", root=Path("/data"))
    lines = (tmp_path / "test.csv").read_text().splitlines()
    assert lines[0] == "path,label,predicted,cat,dog"
    assert lines[1] == "a.png,cat,dog,0.25,0.75"
    assert lines[2].startswith("\"sub/b, 'c'.png\",dog,dog,")
    assert lines[3].startswith("/elsewhere/ü.png,,cat,")


def test_classes_may_be_called_like_the_other_columns(tmp_path):
    for names in (("label", "path"), ("label", "class label"), ("class", "class error")):
        write_predictions(some_predictions(names=names), tmp_path / "test.csv")
        header = (tmp_path / "test.csv").read_text().splitlines()[0].split(",")
        assert len(set(header)) == len(header) == 5
        again = read_predictions(tmp_path / "test.csv")
        assert again.class_names == names
        assert again.labels.tolist() == [0, 1, -1]


def test_a_path_that_is_no_utf8_survives(tmp_path):
    predictions = Predictions(("bad\udcff.png",), np.array([0]), np.array([[1.0, 0.0]]), ("a", "b"))
    write_predictions(predictions, tmp_path / "test.csv")
    assert read_predictions(tmp_path / "test.csv").paths == ("bad\udcff.png",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected path,label,predicted"),
        ("file,class\n", r"starts with the columns \['file', 'class'\]"),
        ("path,label,predicted,a,b\nx.png,a,a,0.5\n", "a row without 2 probabilities"),
        ("path,label,predicted,a,b\nx.png,a,a,0.5,half\n", "could not convert string to float: 'half'"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, text, message):
    path = tmp_path / "test.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_predictions(path)
    assert caught.value.where == str(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="no such predictions file"):
        read_predictions(tmp_path / "none.csv")


@pytest.fixture(scope="module")
def model():
    import keras

    keras.utils.set_random_seed(3)
    pixels = keras.Input((32, 32, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 255)(pixels)
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(scaled))
    return keras.Model(pixels, keras.layers.Dense(3, activation="softmax")(features))


def test_records_are_predicted_in_their_order_as_the_model_itself_does(model):
    from imagetune.data.loading.decode import load_image

    paths = sorted(CLIPART.glob("birds/*.png"))[:3] + sorted(CLIPART.glob("fruit/*.png"))[:2]
    records = [Record(str(path), path.parent.name) for path in paths]
    names = ("fruit", "birds", "boats")
    found = predict_records(model, records, names, image=IMAGE, batch_size=2, workers=0, max_pixels=10**7)
    images = np.stack([load_image(str(path), IMAGE, max_pixels=10**7) for path in paths])
    expected = model.predict_on_batch(images)
    assert found.paths == tuple(map(str, paths))
    assert found.labels.tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert found.predicted.tolist() == expected.argmax(axis=1).tolist()


def test_an_unknown_label_becomes_minus_one(model):
    records = [Record(str(next(CLIPART.glob("birds/*.png"))), "dinosaurs")]
    found = predict_records(model, records, ("a", "b", "c"), image=IMAGE, batch_size=4, workers=0, max_pixels=10**7)
    assert found.labels.tolist() == [-1]


def test_a_vanished_image_is_named(model, tmp_path):
    records = [Record(str(tmp_path / "gone.png"), "a")]
    with pytest.raises(DataError) as caught:
        predict_records(model, records, ("a", "b", "c"), image=IMAGE, batch_size=4, workers=0, max_pixels=10**7)
    assert "gone.png" in str(caught.value)

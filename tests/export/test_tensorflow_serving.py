"""The folder of TensorFlow Serving, a version below a name, and its way to send images: the bytes of their files."""

import shutil

import pytest
from tiny_backbones import tiny_backbones

from imagetune.commands.predict import predict
from imagetune.export.outputs import PROBABILITIES, build_export_model
from imagetune.export.saved_model import ENCODED, write_saved_model
from imagetune.model.manifest import load_model


@pytest.fixture(scope="module")
def loaded(wide_run):
    with tiny_backbones():
        return load_model(wide_run / "model")


def test_an_export_under_a_version_number_answers_the_bytes_of_files_as_predict_does(wide_run, loaded, tmp_path):
    import tensorflow as tf

    write_saved_model(build_export_model(loaded), tmp_path / "out" / "saved_model", loaded.image)
    # What `docker run -v OUT/saved_model:/models/wide/1` shows to the server.
    version = shutil.copytree(tmp_path / "out" / "saved_model", tmp_path / "models" / "wide" / "1")
    assert (version / "saved_model.pb").is_file()
    assert list((version / "variables").glob("variables.data-*"))
    files = sorted((wide_run.parent / "images").glob("*/*.png"))[::5]
    with tiny_backbones():
        expected = list(predict(str(wide_run), [str(file) for file in files]))
    signature = tf.saved_model.load(str(version)).signatures[ENCODED]
    found = signature(**{ENCODED: tf.constant([file.read_bytes() for file in files])})[PROBABILITIES].numpy()
    assert [loaded.class_names[index] for index in found.argmax(axis=1)] == [one.label for one in expected]
    for row, one in zip(found.tolist(), expected, strict=True):
        # TensorFlow's resizing and ours differ in rounding.
        assert row == pytest.approx(list(one.probabilities.values()), abs=0.02)

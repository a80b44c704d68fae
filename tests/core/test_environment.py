"""Variables and settings files that libraries would inherit from a notebook, a shell or a home folder."""

import json
import os
import subprocess
import sys

import pytest

from imagetune.core.environment import settle_backend, settle_process_environment
from imagetune.errors import RecipeError


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A process that hasn't imported Keras yet, whose keras.json is what a test writes."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "")

    def write(**settings):
        (tmp_path / "keras.json").write_text(json.dumps(settings), "utf-8")
        return tmp_path / "keras.json"

    return write


@pytest.mark.parametrize("backend", ["torch", "theano", "cntk", ["tensorflow"]])
def test_a_backend_of_keras_json_that_nothing_here_runs_on_means_tensorflow(fresh, backend):
    fresh(backend=backend, image_dim_ordering="th")
    settle_backend()
    assert os.environ["KERAS_BACKEND"] == "tensorflow"


def test_without_keras_json_or_with_one_that_serves_keras_chooses(fresh):
    settle_backend()
    fresh(backend="tensorflow")
    settle_backend()
    assert os.environ["KERAS_BACKEND"] == ""


@pytest.mark.parametrize("name", ["torch", "Jax", "theano"])
def test_a_backend_that_the_variable_names_is_refused_by_the_variables_name(fresh, monkeypatch, name):
    monkeypatch.setenv("KERAS_BACKEND", name)
    with pytest.raises(RecipeError) as caught:
        settle_backend()
    assert str(caught.value).startswith(f"$KERAS_BACKEND: imagetune has no backend {name!r}: it runs on tensorflow")


@pytest.mark.parametrize("wrong", [{"floatx": "bfloat16"}, {"image_data_format": "th"}, {"epsilon": "small"}])
def test_a_keras_json_with_which_keras_cannot_start_is_named(fresh, wrong):
    file = fresh(**wrong)
    with pytest.raises(RecipeError) as caught:
        settle_backend()
    assert caught.value.where == str(file)
    assert next(iter(wrong)) in caught.value.what


def test_a_process_of_ours_inherits_neither_a_notebooks_plots_nor_keras_debugging_aids(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("KERAS_MAX_EPOCHS", "1")
    monkeypatch.setenv("KERAS_NNX_ENABLED", "1")
    settle_process_environment()
    assert os.environ["MPLBACKEND"] == "agg"
    assert "KERAS_MAX_EPOCHS" not in os.environ
    assert os.environ["KERAS_NNX_ENABLED"] == "false"


def test_a_command_runs_with_the_variables_of_a_notebook_and_another_program(images, tmp_path):
    """The audit's page imports matplotlib and OpenCV, which die at their import over a value that they don't know."""
    strange = {"MPLBACKEND": "nosuch", "OPENCV_IO_MAX_IMAGE_PIXELS": "many", "KERAS_BACKEND": "torch"}
    command = [sys.executable, "-m", "imagetune", "data", "check", str(images), "--page", str(tmp_path / "page.html")]
    done = subprocess.run(command, env={**os.environ, **strange}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_whose_plots_go_elsewhere_keeps_its_variable(tmp_path):
    program = (
        "import os\n"
        "from imagetune.core.quiet import _matplotlib_backend_kept\n"
        "with _matplotlib_backend_kept():\n"
        "    import matplotlib\n"
        "print(os.environ['MPLBACKEND'], matplotlib.rcParams['backend'])\n"
    )
    for named, used in (("svg", "svg"), ("nosuch", "agg")):
        environment = {**os.environ, "MPLBACKEND": named}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.split() == [named, used], done.stderr

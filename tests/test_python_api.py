import doctest
import io
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from tiny_backbones import TINY

import imagetune
from imagetune.api import functions as api
from imagetune.data.loading.decode import load_image
from imagetune.recipe.shipped import list_shipped_recipes

ROOT = Path(imagetune.__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SMALL = {
    "data": {"image_size": 32, "augmentation": "none", "split": {"val": 0.2, "test": 0.4, "method": "stratified"}},
    "train": {"batch_size": 16, "stages": "linear_probe", "epochs": 2},
    "tracking": {"enabled": False},
}


pytestmark = pytest.mark.usefixtures("tiny")


def small(images, backbone=TINY):
    """Return a recipe of a few seconds; what trains in other processes needs a real backbone."""
    model = {"backbone": backbone, "weights": "random"}
    return {**SMALL, "data": {**SMALL["data"], "source": images}, "model": model}


@pytest.fixture(scope="module")
def run(images, tmp_path_factory, tiny):
    return imagetune.fit(small(images), run_dir=tmp_path_factory.mktemp("api") / "run", seed=1)


def test_importing_it_takes_milliseconds_and_starts_no_library():
    command = [sys.executable, "-X", "importtime", "-c", "import imagetune; imagetune.fit; imagetune.DataError"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stderr
    assert not re.search(r"\b(keras|tensorflow|numpy|pydantic|mlflow|rich)\b", told)
    (line,) = [line for line in told.splitlines() if line.endswith("| imagetune")]
    assert int(line.split("|")[1]) < 50_000  # microseconds


def test_the_package_names_what_it_offers():
    assert set(imagetune.__all__) <= set(dir(imagetune))
    assert all(getattr(imagetune, name) is not None for name in imagetune.__all__)
    assert issubclass(imagetune.RecipeError, imagetune.ImagetuneError)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        imagetune.fitt  # noqa: B018


def test_the_function_search_stays_although_a_package_has_its_name():
    import imagetune.search.space

    assert imagetune.search is api.search


def test_a_fit_prints_nothing_logs_messages_and_leaves_signals_and_keras_as_they_were(images, tmp_path, capfd, caplog):
    import keras

    handlers, policy = [signal.getsignal(number) for number in SIGNALS], keras.config.dtype_policy().name
    heard = []
    recipe = small(str(images))
    capfd.readouterr()  # what TensorFlow said if this test imported it first
    with caplog.at_level(logging.INFO, logger="imagetune"):
        fitted = imagetune.fit(
            recipe, run_dir=tmp_path / "run", progress=heard.append, train__epochs=1, train__precision="mixed_bfloat16"
        )
    assert capfd.readouterr() == ("", "")
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert keras.config.dtype_policy().name == policy
    assert [record.epoch for record in heard] == [1]
    assert fitted.epochs == tuple(heard)
    assert recipe == small(str(images))
    assert any(record.getMessage().startswith("data: ") for record in caplog.records)


def test_progress_is_shown_where_it_is_asked_for(images, tmp_path, capfd):
    imagetune.fit(small(images), run_dir=tmp_path / "run", progress=True, train__epochs=1)
    out, err = capfd.readouterr()
    assert not out
    assert re.search(r"^epoch +1 +train loss", err, re.MULTILINE)


@pytest.fixture
def _listening():
    """Ctrl-C raises KeyboardInterrupt, also where the tests run as a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_listening")
def test_an_interrupt_comes_through_and_the_run_is_killed(images, tmp_path):
    from imagetune.run_folder.folder import RunFolder

    place = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        imagetune.fit(small(images), run_dir=place, progress=lambda _: signal.raise_signal(signal.SIGINT))
    assert RunFolder(place).read_status()["state"] == "killed"
    with pytest.raises(imagetune.StoppedError, match="stopped on request"):
        imagetune.fit(small(images), run_dir=tmp_path / "other", stop=lambda: True)
    assert RunFolder(tmp_path / "other").read_status()["state"] == "killed"


def test_a_mapping_with_six_mistakes_reports_all_six_by_their_keys():
    wrong = {
        "sed": 1,
        "data": {"source": "here", "image_size": "big"},
        "model": {"backbone": 3, "head": {"dropout": 2.0}},
        "train": {"batch_size": 0, "stages": [{"name": "head", "epochs": "many", "learning_rate": 1e-3}]},
    }
    with pytest.raises(imagetune.RecipeError) as caught:
        imagetune.fit(wrong)
    lines = caught.value.lines()
    assert len(lines) == 6
    keys = ["sed", "data.image_size", "model.backbone", "model.head.dropout", "train.batch_size"]
    for key in [*keys, "train.stages[0].epochs"]:
        assert any(line.startswith(f"error[recipe] {key}: ") for line in lines)


def test_compare_takes_several_runs_or_a_list_of_them(run):
    for runs in ((run,), ([run],), ((str(run.folder),),)):
        with pytest.raises(imagetune.RecipeError) as caught:
            imagetune.compare(*runs)
        assert "1 given; from 2 to" in str(caught.value)


def test_errors_say_where_what_and_what_to_do(run, images, tmp_path):
    with pytest.raises(imagetune.RecipeError) as caught:
        imagetune.fit(small(images), train__batch_sise=3)
    assert (caught.value.where, caught.value.hint) == ("train.batch_sise", "did you mean 'batch_size'?")
    with pytest.raises(imagetune.DataError) as caught:
        run.predict(np.zeros((8, 8)))
    assert "dtype float64 with values" in caught.value.what
    assert "uint8" in caught.value.hint
    with pytest.raises(imagetune.ModelFileError, match="no such run folder"):
        imagetune.load(tmp_path / "nowhere")
    with pytest.raises(imagetune.RecipeError, match="5 is not a recipe"):
        imagetune.fit(5)


def test_arrays_and_paths_give_the_same_predictions(run, images):
    by_path = list(run.predict(images / "red"))
    arrays = [load_image(prediction.path, run.recipe.data.image, max_pixels=10**6) for prediction in by_path]
    for given in (arrays, np.stack(arrays)):
        by_array = list(run.predict(given))
        assert [one.label for one in by_array] == [one.label for one in by_path]
        for ours, theirs in zip(by_array, by_path, strict=True):
            assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-6)
    assert [one.path for one in run.predict(arrays[0])] == ["images[0]"]
    assert list(run.predict([])) == []


def test_predictions_come_as_they_are_made_and_mistakes_before_the_first(run, images, tmp_path):
    predictions = imagetune.predict(run, [images / "red"])
    assert next(predictions).path == str(images / "red" / "red00.png")
    (tmp_path / "list.csv").write_text("path\nnone.png\n" + f"{images / 'red' / 'red01.png'}\n" * 2)
    none, *found = run.predict(tmp_path / "list.csv")
    assert (none.path, none.error) == (str(tmp_path / "none.png"), "no such file")
    assert [one.label for one in found] == [found[0].label] * 2
    with pytest.raises(imagetune.DataError, match="no such file or folder"):
        run.predict(tmp_path / "nowhere.png")
    with pytest.raises(imagetune.ModelFileError, match="no operating point"):
        run.predict(images / "red", operating_point=True)


def test_a_loaded_run_is_what_the_fit_returned(run):
    loaded = imagetune.load(str(run.folder))
    assert loaded == run
    assert loaded.class_names == ("blue", "green", "red")
    assert loaded.recipe.seed == 1
    assert loaded.model.output_shape == (None, 3)
    assert f"accuracy {loaded.metrics['accuracy']}" in repr(loaded)
    assert "<td>accuracy</td>" in loaded._repr_html_()


def test_a_test_once_more_finds_the_same(run):
    again = run.evaluate(require=["accuracy:value=1.0", "f1:value=0.0"])
    assert {name: str(found) for name, found in again.metrics.items()} == {
        name: str(found) for name, found in run.metrics.items()
    }
    assert len(again.missed) == (again.metrics["accuracy"].value < 1)


def test_images_in_memory_are_explained(run, tmp_path):
    grey = np.full((20, 40, 3), 128, np.uint8)
    (found,) = run.explain([grey], out=tmp_path / "maps")
    assert found.target in run.class_names
    assert Path(found.file) == tmp_path / "maps" / "image-0.jpg"
    assert Path(found.file).is_file()


def test_a_recipe_of_a_run_fits_again(run, tmp_path):
    again = imagetune.fit(run.recipe, run_dir=tmp_path / "again")
    assert again.metrics == run.metrics


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once_although_processes_load_its_images(images, tmp_path):
    script, recipe = tmp_path / "script.py", small(str(images), "efficientnet_lite0")
    script.write_text(f"import imagetune\nprint('begins')\nprint(imagetune.fit({recipe!r}, data__workers=1))\n")
    found = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (found.stderr, found.returncode) == ("", 0)
    assert re.fullmatch(r"begins\n<FinishedRun run-.*>\n", found.stdout)


def test_a_new_process_runs_no_script():
    from multiprocessing.spawn import get_preparation_data

    from imagetune.core.processes import hide_main_module

    before = sys.modules["__main__"]
    with hide_main_module():
        told = get_preparation_data("worker")
    assert not {"init_main_from_path", "init_main_from_name"} & set(told)
    assert sys.modules["__main__"] is before


@pytest.mark.slow
def test_a_search_tells_of_each_trial_and_of_the_last_training(images, tmp_path, capfd):
    heard = []
    rate = {"search": "log_uniform", "low": 1e-4, "high": 1e-2}
    found = imagetune.search(
        small(str(images), "efficientnet_lite0"),
        run_dir=tmp_path / "search",
        progress=heard.append,
        train__epochs=1,
        train__learning_rate=rate,
        search__algorithm="random",
        search__trials=2,
    )
    assert capfd.readouterr() == ("", "")
    kinds = [type(event).__name__ for event in heard]
    assert kinds == ["TrialResult"] * len(found.trials) + ["EpochRecord"]
    assert found.best.folder == tmp_path / "search" / "best"
    assert len(list(found.best.predict(images / "red"))) == 10


# Examples that take over ten seconds.
LONG = ("export", "search")


# The examples are of these, on two of the shipped classes in small.


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny):
    """A folder with a small quickstart.yaml and its images, and two finished runs."""
    place = tmp_path_factory.mktemp("workplace")
    recipe = list_shipped_recipes()["quickstart"]
    (place / "clipart").symlink_to(recipe.parent / "clipart")
    text = recipe.read_text(encoding="utf-8").replace("image_size: 192", "image_size: 64\n  classes: [birds, fruit]")
    (place / "quickstart.yaml").write_text(text + "tracking: {enabled: false}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        head = {"train__stages": "linear_probe", "train__epochs": 2}
        imagetune.fit("quickstart.yaml", run_dir="runs/clipart", **head)
        # What it is compared with may be any model of these images.
        other = {"train__epochs": 3, "model__backbone": TINY, "model__weights": "random"}
        imagetune.fit("quickstart.yaml", run_dir="runs/longer", **(head | other))
    return place


@pytest.mark.parametrize(
    "name",
    [
        *("compare", "evaluate", "fit", "load", "predict"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in LONG),
    ],
)
def test_the_example_of_a_function_holds(name, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    (found,) = doctest.DocTestFinder(recurse=False).find(getattr(api, name), name)
    told = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert found.examples
    assert runner.run(found, out=told.write).failed == 0, told.getvalue()


@pytest.mark.slow
def test_the_page_on_python_holds(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    with redirect_stdout(io.StringIO()) as told:
        for block in blocks:
            exec(compile(textwrap.dedent(block), "docs/python.md", "exec"), names)
    assert "fruit" in told.getvalue()


@pytest.mark.slow
def test_the_notebook_goes_from_a_folder_to_a_prediction(tmp_path, monkeypatch):
    import nbclient
    import nbformat

    (tmp_path / "clipart").symlink_to(list_shipped_recipes()["quickstart"].parent / "clipart")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "from_folder_to_prediction.ipynb", 4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert any(output.get("text", "").startswith("fruit") for output in outputs)
    assert "image/jpeg" in outputs[-1].data
    committed = (ROOT / "docs" / "from_folder_to_prediction.ipynb").read_text(encoding="utf-8")
    assert "/tmp/" not in committed
    assert len(committed) < 100_000

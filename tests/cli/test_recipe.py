import json
import subprocess
import sys
import time

import pytest

from imagetune.recipe.shipped import list_shipped_recipes


def test_validate_is_quick_and_never_starts_keras(real_recipe, start):
    code = (
        "import sys\n"
        "from imagetune.cli.main import run\n"
        f"assert run(['recipe', 'validate', {str(real_recipe)!r}]) == 0\n"
        "heavy = {'keras', 'tensorflow', 'mlflow', 'sklearn', 'jax', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "valid (2 stages)" in done.stdout
    assert time.perf_counter() - began < 10  # a bound for hangs; the metric is in docs/performance.md


@pytest.mark.parametrize("name", sorted(list_shipped_recipes()))
def test_every_shipped_recipe_validates_and_is_short(name, imagetune):
    path = list_shipped_recipes()[name]
    outcome = imagetune("recipe", "validate", path)
    assert outcome.code == 0, outcome.err
    assert len(path.read_text().splitlines()) <= 40


def test_list_names_every_recipe_with_its_purpose(imagetune):
    lines = imagetune("recipe", "list").out.splitlines()
    assert len(lines) == len(list_shipped_recipes())
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)


def test_copy_brings_the_images_along_and_never_overwrites(workplace, imagetune):
    assert imagetune("recipe", "copy", "quickstart", "here").code == 0
    assert len(list((workplace / "here/clipart").glob("*/*.png"))) == 420
    assert (workplace / "here/clipart/SOURCE.md").exists()
    assert imagetune("recipe", "validate", "here/quickstart.yaml").code == 0
    # Else the runs of all projects would share one experiment in MLflow.
    assert "experiment: here\n" in imagetune("recipe", "show", "here/quickstart.yaml").out
    outcome = imagetune("recipe", "copy", "quickstart", "here")
    assert outcome.code == 2
    assert "is already there" in outcome.err


def test_copy_of_an_unknown_recipe_gets_a_guess(imagetune):
    outcome = imagetune("recipe", "copy", "resnet5", ".")
    assert outcome.code == 2
    assert "did you mean 'resnet50'" in outcome.err


def test_show_writes_every_default_out(recipe, imagetune):
    outcome = imagetune("recipe", "show", recipe, "-o", "train.stages=linear_probe")
    assert "resize: pad" in outcome.out
    assert "unfreeze: none" in outcome.out
    assert "unfreeze: last" not in outcome.out


def test_diff_shows_what_differs(recipe, workplace, imagetune):
    other = workplace / "other.yaml"
    other.write_text(recipe.read_text().replace("batch_size: 16", "batch_size: 8"))
    assert imagetune("recipe", "diff", recipe, other).out == "train.batch_size: 16 -> 8\n"


def test_schema_is_json_with_descriptions(imagetune):
    schema = imagetune("recipe", "schema").json()
    assert schema["$defs"]["DataConfig"]["properties"]["source"]["description"]
    assert json.dumps(schema)


def test_a_folder_that_cannot_be_written_is_refused_before_training(recipe, imagetune):
    for place in ("/proc/nowhere/run", recipe / "run"):
        outcome = imagetune("fit", recipe, "--run-dir", place)
        assert outcome.code == 2
        assert "the run folder can't be made here" in outcome.err
        assert "model" not in outcome.err


def test_a_run_folder_in_the_place_of_a_recipe_is_told_from_images(images, fitted, imagetune):
    outcome = imagetune("fit", fitted[1])
    assert outcome.code == 2
    assert f"is a run folder, neither a recipe nor a folder of images; its recipe is {fitted[1]}" in outcome.err
    assert imagetune("recipe", "validate", images).code == 0


def test_a_shipped_recipe_is_shown_by_its_name(imagetune, workplace):
    assert imagetune("recipe", "show", "quickstart").out.startswith("name: quickstart\n")
    assert imagetune("recipe", "validate", "resnet50").code == 0
    assert "model.backbone" in imagetune("recipe", "diff", "resnet50", "vgg16").out
    assert "no such file or folder" in imagetune("recipe", "show", "quickstar").err


@pytest.mark.parametrize("command", ["fit", "search", "lr-find", "profile"])
def test_recipe_source_and_labels_are_refused_before_keras_is_imported(command, workplace, real_recipe):
    """In a process of its own; the one of the tests has Keras."""
    (workplace / "empty").mkdir()
    code = (
        "import sys\n"
        "from imagetune.cli.main import run\n"
        f"recipe, command = {str(real_recipe)!r}, {command!r}\n"
        "assert run([command, 'nosuch.yaml']) == 2\n"
        "assert run([command, recipe, '-o', 'data.source=nosuch']) == 3\n"
        "assert run([command, recipe, '-o', 'data.source=empty']) == 3\n"
        "assert run([command, 'empty']) == 3\n"
        "heavy = {'keras', 'tensorflow', 'mlflow'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_inside_a_list_only_what_is_wrong_there_is_reported(recipe, imagetune):
    outcome = imagetune("recipe", "validate", recipe, "-o", "data.augmentation=[{HorizontalFlip: {p: 0.5}}, Blur]")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert "data.augmentation[1]: 'Blur' is wrong: expected keys and values; write `Blur: {}`" in line


def test_a_value_in_the_place_of_a_section_gets_the_sections_keys(recipe, imagetune):
    outcome = imagetune("recipe", "validate", recipe, "-o", "data.split=0.2")
    assert "data.split: 0.2 is wrong: expected keys and values; its keys are val, test, method" in outcome.err


def test_a_block_that_the_backbone_lacks_is_found_in_the_recipes_file(real_recipe, workplace, imagetune):
    recipe = real_recipe
    recipe.write_text(recipe.read_text().replace("last 1 blocks", "blok5"))
    outcome = imagetune("fit", recipe, "--run-dir", workplace / "run")
    line = 1 + recipe.read_text()[: recipe.read_text().index("blok5")].count("\n")
    assert outcome.code == 2
    assert f"{recipe}:{line}:" in outcome.err
    assert "train.stages[1].unfreeze: efficientnet_lite0 has no block or layer 'blok5'" in outcome.err
    assert not (workplace / "run").exists()


def test_a_mistyped_command_gets_a_suggestion(imagetune):
    outcome = imagetune("evalaute")
    assert outcome.code == 2
    assert "No such command 'evalaute'. Did you mean 'evaluate'?" in outcome.err


def test_a_reader_that_goes_away_is_no_bug(start):
    with start("recipe", "schema") as process:
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""

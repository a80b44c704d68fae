import csv
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from browser import browse, needs_browser, sort_by_keyboard, window

from imagetune.core.files import compute_file_sha256
from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.evaluation.predictions import Predictions, write_predictions
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import format_recipe

RECIPE = """\
name: colours
seed: 3
data: {{source: {source}, image_size: 32}}
model: {{backbone: efficientnet_lite0, weights: random}}
evaluate: {{bootstrap_samples: 200}}
tracking: {{enabled: false}}
"""
NAMES = ("blue", "green", "red")


@pytest.fixture
def source(images, workplace):
    """The coloured images, where the test may change them."""
    return shutil.copytree(images, workplace / "colours")


@pytest.fixture
def make(workplace, source):
    """Write a run folder as a fit leaves it, as far as a comparison reads it; every ``wrong``th prediction is wrong."""

    def make(name, *, wrong=0, tested=range(4, 10), names=NAMES, groups=None, relabel=()):
        folder = workplace / name
        folder.mkdir()
        (workplace / "recipe.yaml").write_text(RECIPE.format(source=source))
        (folder / "recipe.yaml").write_text(format_recipe(load_recipe(workplace / "recipe.yaml").recipe))
        paths = sorted(source.glob("*/*.png"))
        chosen = [path for path in paths if int(re.findall(r"\d+", path.stem)[0]) in tested]
        with (folder / "splits.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split", "group"])
            for path in paths:
                group = groups(path) if groups else ""
                split = "test" if path in chosen else "train"
                writer.writerow([path.relative_to(source), path.parent.name, split, group])
        labels = np.array([names.index(path.parent.name) for path in chosen])
        for place in relabel:
            labels[place] = (labels[place] + 1) % 3
        predictions = np.where(wrong and np.arange(len(chosen)) % (wrong or 1) == 0, (labels + 1) % 3, labels)
        probabilities = np.full((len(chosen), 3), 0.1)
        probabilities[np.arange(len(chosen)), predictions] = 0.8
        found = Predictions(tuple(map(str, chosen)), labels, probabilities, tuple(names))
        write_predictions(found, folder / "predictions" / "test.csv", root=source)
        hashes = {str(path): compute_file_sha256(path) for path in paths}
        (folder / "lock.json").write_text(json.dumps({"images": hashes}))
        return folder

    return make


def test_the_better_run_is_named_with_an_interval(make, imagetune):
    make("good"), make("bad", wrong=2)
    outcome = imagetune("compare", "good", "bad")
    assert outcome.code == 0, outcome.err
    assert "A is better than B: the accuracy of A is 50.0 points above that of B (95% interval" in outcome.out
    assert "McNemar's exact test p = 0.0039" in outcome.out
    assert "9 of 18 change from A to B (50.0%): 9 right -> wrong, 0 wrong -> right" in outcome.out
    assert "blue/blue04.png: the label is blue; A predicts blue, B predicts green" in outcome.out


def test_json_holds_everything(make, imagetune):
    make("one", wrong=3), make("two", wrong=2), make("three")
    document = imagetune("compare", "one", "two", "three", "--json", "--metric", "f1").json()
    assert [run["key"] for run in document["runs"]] == ["A", "B", "C"]
    assert (document["images"], document["matched_by"], document["metric"]) == (18, "content", "f1")
    assert len(document["pairs"]) == 3
    assert document["pairs"][0]["churn"]["changed"] == 9
    assert document["runs"][2]["metrics"]["accuracy"]["value"] == 1.0


def test_the_order_of_runs_and_classes_does_not_matter(make, imagetune):
    make("one", wrong=3), make("two", wrong=2, names=("red", "blue", "green"))
    forth = imagetune("compare", "one", "two", "--json").json()["pairs"][0]
    back = imagetune("compare", "two", "one", "--json").json()["pairs"][0]
    assert forth["metrics"]["accuracy"]["difference"]["value"] == pytest.approx(3 / 18)
    assert back["metrics"]["accuracy"]["difference"]["value"] == pytest.approx(-3 / 18)
    assert forth["test"]["p_value"] == back["test"]["p_value"]
    recalls = [{found["class"]: found["first"] for found in pair["per_class"]} for pair in (forth, back)]
    assert recalls[0]["blue"] != recalls[1]["blue"]
    assert {found["class"]: found["second"] for found in back["per_class"]} == recalls[0]


def test_other_test_images_are_refused_with_how_many_are_common(make, imagetune):
    make("one"), make("two", tested=range(6, 10))
    outcome = imagetune("compare", "one", "two")
    assert outcome.code == 3
    assert "their test images differ: 12 are common to all (A has 18, B has 12)" in outcome.err
    assert "two was trained or selected with 6 test images of others" in outcome.err
    assert "add --common to compare on the 12 that are new to all of them" in outcome.err

    outcome = imagetune("compare", "one", "two", "--common")
    assert outcome.code == 0
    assert "12 test images" in outcome.out
    assert "the comparison is on 12 that all have in common" in outcome.out


def test_runs_without_common_images_cannot_be_compared(make, imagetune):
    make("one", tested=range(0, 5)), make("two", tested=range(5, 10))
    for words in ((), ("--common",)):
        outcome = imagetune("compare", "one", "two", *words)
        assert outcome.code == 3
        assert "fit them with the same data and data.split.seed" in outcome.err


def test_a_copy_of_a_test_image_in_a_training_split_is_left_out(make, source, imagetune):
    # blue00 is a training image.
    shutil.copy(source / "blue/blue05.png", source / "blue/blue00.png")
    make("one"), make("two", wrong=2)
    outcome = imagetune("compare", "one", "two")
    assert outcome.code == 3
    assert "some run was trained on copies or near-duplicates of 1 test image" in outcome.err
    outcome = imagetune("compare", "one", "two", "--common")
    assert "17 test images" in outcome.out
    assert "1 image left out: a copy or near-duplicate is in some run's training or validation split" in outcome.out


def test_a_near_duplicate_of_a_test_image_in_another_runs_training_is_left_out(make, source, imagetune):
    # blue00 is a training image, in another size than the test image.
    large = cv2.resize(cv2.imread(str(source / "blue/blue05.png")), (48, 48), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(source / "blue/blue00.png"), large)
    make("one"), make("two", tested=range(5, 10))
    outcome = imagetune("compare", "one", "two", "--common")
    assert outcome.code == 0, outcome.err
    assert "14 test images" in outcome.out
    assert "1 image left out: a copy or near-duplicate" in outcome.out


def test_moved_images_are_the_same_by_their_content(make, source, workplace, imagetune):
    make("one", wrong=2)
    elsewhere = shutil.copytree(source, workplace / "elsewhere")
    run = make("two")
    for name in ("recipe.yaml", "lock.json"):
        text = (run / name).read_text()
        (run / name).write_text(text.replace(str(source), str(elsewhere)))
    assert imagetune("compare", "one", "two", "--json").json()["matched_by"] == "content"
    (run / "lock.json").unlink()
    outcome = imagetune("compare", "one", "two")
    assert outcome.code == 3
    assert "0 are common" in outcome.err


def test_without_hashes_images_are_matched_by_their_path(make, imagetune):
    make("one", wrong=2)
    (make("two") / "lock.json").unlink()
    outcome = imagetune("compare", "one", "two")
    assert "18 test images, matched by path" in outcome.out
    assert "copies would not be noticed" in outcome.out


def test_images_with_two_truths_are_left_out(make, imagetune):
    make("one", wrong=2), make("two", relabel=(0, 1))
    outcome = imagetune("compare", "one", "two")
    assert outcome.code == 3
    assert "2 common images with different labels" in outcome.err
    document = imagetune("compare", "one", "two", "--common", "--json").json()
    assert document["images"] == 16
    assert any("have different labels for them" in note for note in document["notes"])


def test_groups_of_the_splits_are_kept_together(make, imagetune):
    def halves(path):
        return f"{path.parent.name}{int(path.stem[-2:]) // 3}"

    make("one", wrong=2, groups=halves), make("two", groups=halves)
    document = imagetune("compare", "one", "two", "--json").json()
    assert document["groups"] == 9
    assert document["pairs"][0]["test"]["method"] == "exact swap test by group"
    assert any("9 groups" in note for note in document["notes"])


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("one",), 2, "from 2 to 26 runs"),
        (("one", "nowhere"), 9, "no such run folder"),
        (("one", "two", "--metric", "speed"), 2, "none of accuracy"),
    ],
)
def test_mistakes_are_reported_in_one_line(make, imagetune, words, code, message):
    make("one"), make("two")
    outcome = imagetune("compare", *words)
    assert outcome.code == code
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_run_that_was_never_tested_or_has_other_classes_is_refused(make, workplace, imagetune):
    make("one")
    shutil.rmtree(make("untested") / "predictions")
    outcome = imagetune("compare", "one", "untested")
    assert outcome.code == 9
    assert "untested: has no test predictions" in outcome.err
    other = make("other") / "predictions/test.csv"
    other.write_text(other.read_text().replace(",red", ",orange"))
    outcome = imagetune("compare", "one", "other")
    assert outcome.code == 9
    assert "it lacks red and has orange besides" in outcome.err


def test_the_page_needs_nothing_else(make, workplace, imagetune):
    make("one", wrong=2), make("<two>")
    outcome = imagetune("compare", "one", "<two>", "--page", "pages/compared.html")
    assert outcome.code == 0, outcome.err
    page = (workplace / "pages/compared.html").read_text()
    assert "B is better" in page
    assert page.count("data:image/jpeg;base64,") == 9
    assert "&lt;two&gt;" in page and "<two>" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "blue/blue04.png" in page


def test_a_page_of_several_runs_shows_each_against_each(make, workplace, imagetune):
    make("one", wrong=2), make("two"), make("three", wrong=3)
    assert imagetune("compare", "one", "two", "three", "--page", "page.html").code == 0
    page = (workplace / "page.html").read_text()
    assert "Pairwise differences" in page
    assert page.count("<details") >= 3


@needs_browser
@pytest.mark.parametrize("width", [1200, 500])
def test_a_browser_draws_the_page_without_a_complaint(make, workplace, imagetune, width):
    make("one", wrong=2), make("two"), make("three", wrong=3)
    assert imagetune("compare", "one", "two", "three", "--page", "page.html").code == 0
    seen = browse(workplace / "page.html", width=width)
    assert seen.console == ()
    assert seen.drawn == seen.images == 12
    assert seen.page_width <= seen.window_width


@needs_browser
def test_differences_have_their_intervals_in_sight_on_a_phone(make, workplace, imagetune):
    make("one", wrong=2), make("two")
    assert imagetune("compare", "one", "two", "--page", "page.html").code == 0
    table = "document.querySelector(\"[aria-label='Metrics of A and B']\")"
    with window(workplace / "page.html", width=390) as page:
        assert page.ask(f"{table}.scrollWidth - {table}.clientWidth") == 0
        # Each difference has its interval in the same cell.
        assert page.ask(f"{table}.querySelectorAll('tbody td:nth-of-type(3) small').length") >= 3


@needs_browser
def test_tables_of_the_page_are_sorted_by_keys_alone(make, workplace, imagetune):
    make("one", wrong=2), make("two"), make("three", wrong=3)
    assert imagetune("compare", "one", "two", "three", "--page", "page.html").code == 0
    columns = sort_by_keyboard(workplace / "page.html", width=390)
    assert columns
    for column in columns:
        column.check()


def test_no_model_library_is_loaded(make, workplace):
    make("one"), make("two")
    code = (
        "import sys; from imagetune.cli.main import run; run(['compare', 'one', 'two']); print('keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_run_and_its_mlflow_address_are_the_same(fitted, workplace, imagetune, monkeypatch):
    place, run = fitted
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(workplace / "cache"))
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    outcome = imagetune("compare", run, f"runs:/{run_id}", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    assert document["verdict"]["code"] == "identical"
    accuracy = json.loads((run / "evaluation.json").read_text())["splits"]["test"]["metrics"]["accuracy"]
    assert document["runs"][0]["metrics"]["accuracy"] == accuracy


def test_a_missed_requirement_fails_the_evaluation_and_says_by_how_much(fitted, workplace, imagetune):
    outcome = imagetune("evaluate", fitted[1], "--require", "accuracy:lower_bound=0.9999", "--json")
    assert outcome.code == 10
    assert outcome.json()["requirements"][-1]["met"] is False
    assert re.search(
        r"error\[gate\] .*test accuracy: its lower bound [\d.]+ is [\d.]+ below the required 0.9999", outcome.err
    )
    met = imagetune("evaluate", fitted[1], "--require", "accuracy:value=0")
    assert met.code == 0
    assert re.search(r"required    accuracy: value [\d.]+ meets the threshold 0", met.out)


def test_a_requirement_of_the_recipe_holds_in_evaluate_too(fitted, workplace, imagetune):
    run = shutil.copytree(fitted[1], workplace / "run")
    recipe = load_recipe(run / "recipe.yaml", ["evaluate.require=[{metric: f1, lower_bound: 0.9999}]"]).recipe
    (run / "recipe.yaml").write_text(format_recipe(recipe))
    outcome = imagetune("evaluate", run)
    assert outcome.code == 10
    assert "test f1: its lower bound" in outcome.err
    assert "balanced accuracy" in outcome.out


@pytest.mark.parametrize("bar", ["speed:value=1", "accuracy", "accuracy:value=high", "log_loss:lower_bound=1"])
def test_a_requirement_that_makes_no_sense_is_refused(workplace, imagetune, bar):
    outcome = imagetune("evaluate", "run", "--require", bar)
    assert outcome.code == 2
    assert "--require" in outcome.err


def task_predictions(task, paths, seed):
    generator, truth = np.random.default_rng(seed), np.random.default_rng(0)
    count, unknown = len(paths), np.full(len(paths), -1)
    if task == "regression":
        true = truth.normal(40, 20, (count, 1)).round(1)
        return Predictions(
            paths, unknown, true + generator.normal(0, seed, (count, 1)), ("value",), LabelRule(task), true
        )
    probabilities = generator.random((count, 3))
    if task == "multi_label":
        targets = (truth.random((count, 3)) < 0.5).astype(float)
        return Predictions(paths, unknown, probabilities, NAMES, LabelRule(task), targets, (0.3, 0.5, 0.6))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Predictions(paths, truth.integers(0, 3, count), probabilities, NAMES, LabelRule(task))


@pytest.mark.parametrize("task", ["single_label", "multi_label", "ordinal", "regression"])
def test_the_metrics_of_each_task_are_those_of_the_runs_reports(task, source, workplace, imagetune):
    documents = []
    for name, seed in (("one", 1), ("two", 6)):
        folder = workplace / name
        folder.mkdir()
        text = RECIPE.format(source=source).replace("image_size", f"task: {task}, image_size")
        (workplace / "recipe.yaml").write_text(text)
        recipe = load_recipe(workplace / "recipe.yaml").recipe
        (folder / "recipe.yaml").write_text(format_recipe(recipe))
        paths = tuple(str(path) for path in sorted(source.glob("*/*.png")))
        predictions = task_predictions(task, paths, seed)
        write_predictions(predictions, folder / "predictions" / "test.csv", root=source)
        rows = [f"{path},{label},test,\n" for path, (label, _) in zip(paths, predictions.texts(), strict=True)]
        (folder / "splits.csv").write_text("path,label,split,group\n" + "".join(rows))
        documents.append(
            build_evaluation_document(
                {"test": evaluate_split(predictions, config=recipe.evaluate, seed=3)}, config=recipe.evaluate
            )
        )
        (folder / "evaluation.json").write_text(json.dumps(documents[-1]))
    outcome = imagetune("compare", "one", "two", "--json", "--page", "page.html")
    assert outcome.code == 0, outcome.err
    document = outcome.json()
    for run, reported in zip(document["runs"], documents, strict=True):
        assert run["metrics"], task
        for name, metric in run["metrics"].items():
            own = reported["splits"]["test"]["metrics"][name]
            assert [metric[end] for end in ("value", "low", "high")] == pytest.approx(
                [own[end] for end in ("value", "low", "high")]
            ), name
    assert imagetune("compare", "one", "two").code == 0

import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality.__main__ import PAGE
from benchmarks.quality.paired import compare
from benchmarks.quality.results import Outcome, Task, append_result, pending, read_results
from benchmarks.quality.rows import BASELINE, ROWS, Row
from benchmarks.quality.scoring import read_peer, read_run, score
from benchmarks.quality.sets import SETS
from benchmarks.quality.sets.build import ImageSet, SourceImage, build_set
from benchmarks.quality.splits import provide_folders
from benchmarks.quality.table import markers, results_table, sets_table, write_tables
from imagetune.recipe.schema import Recipe


def outcome(row, set_name="clipart", split=1, repeat=1, *, accuracy=0.5, log_loss=1.0, cpu_seconds=10.0, **more):
    return Outcome(set_name, split, row, repeat, accuracy, accuracy, log_loss, cpu_seconds=cpu_seconds, **more)


def results_of(*outcomes):
    return {one.task: one for one in outcomes}


def draw(name, label, *, size=(64, 64), mode="RGBA", colour=(255, 0, 0, 0)):
    return SourceImage(name, label, lambda: Image.new(mode, size, colour))


def image_set(made_images, **more):
    return ImageSet("made", "drawings", "choose", (), "none", "class", lambda find: made_images, 0, 0, **more)


@pytest.fixture
def two_classes(tmp_path):
    """A table with six images of each of two classes, two of each for validation and for the test."""
    made_images = [draw(f"{label}{n}", label, colour=(n, 0, 0, 255)) for label in ("cat", "dog") for n in range(6)]
    table = build_set(image_set(made_images, least=1), lambda name: tmp_path, tmp_path / "made")
    rows = list(csv.DictReader(table.open(newline="")))
    split = table.with_name("split-1.csv")
    with split.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        for index, row in enumerate(rows):
            writer.writerow((row["path"], row["label"], ("train", "val", "test")[index % 3], row["group"]))
    return split


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind == "fit"], ids=lambda row: row.name)
def test_each_row_of_ours_is_a_valid_recipe(row):
    recipe = Recipe.model_validate(row.recipe({"name": "made", "seed": 1, "data": {"source": "images.csv"}}))
    assert recipe.data.image_size == row.image_size
    assert recipe.model.backbone == row.backbone


def test_a_row_changes_nested_keys_and_leaves_the_base_alone():
    base = {"name": "made", "data": {"source": "images.csv"}}
    made = Row("strong", "fit", {"data.augmentation": "strong", "train.batch_size": 8}).recipe(base)
    assert made["data"] == {"source": "images.csv", "image_size": 160, "augmentation": "strong"}
    assert made["train"] == {"batch_size": 8}
    assert base == {"name": "made", "data": {"source": "images.csv"}}


def test_halves_are_as_many_and_of_the_same_size():
    halves = {half: [one for one in SETS if one.half == half] for half in ("choose", "judge")}
    assert len(halves["choose"]) == len(halves["judge"]) == 6
    assert len({one.name for one in SETS}) == len(SETS)
    sizes = {half: np.exp(np.mean([np.log(one.images) for one in sets])) for half, sets in halves.items()}
    assert 0.5 < sizes["choose"] / sizes["judge"] < 2


def test_sets_other_than_the_shipped_one_go_to_the_halves_in_turn_by_kind_and_size():
    others = sorted((one for one in SETS if one.packages), key=lambda one: (one.kind, one.images))
    assert [one.half for one in others] == [("judge", "choose")[index % 2] for index in range(len(others))]


def test_a_built_set_is_flattened_on_white_and_small_classes_are_left_out(tmp_path):
    made_images = [
        *(draw(f"clear {n}", "cat") for n in range(3)),
        draw("alone", "dog"),
        draw("sliver", "cat", size=(64, 8)),
        *(draw(f"same {n}", "digit") for n in range(3)),
    ]
    made = image_set(made_images, least=2, without=("digit",))
    table = build_set(made, lambda name: tmp_path, tmp_path / "made")
    rows = list(csv.DictReader(table.open(newline="")))
    assert Counter(row["label"] for row in rows) == {"cat": 3}
    with Image.open(table.parent / rows[0]["path"]) as image:
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (64, 64), (255, 255, 255))


def test_a_large_class_keeps_the_same_images_whatever_the_order(tmp_path):
    made_images = [draw(f"{n}", "cat") for n in range(9)]
    tables = [
        build_set(image_set(order, least=1, most=4), lambda name: tmp_path, tmp_path / name)
        for name, order in (("one", made_images), ("other", made_images[::-1]))
    ]
    assert tables[0].read_text() == tables[1].read_text()
    assert len(tables[0].read_text().splitlines()) == 5


def test_the_folders_of_a_split_hold_its_images(two_classes):
    folder = provide_folders(two_classes)
    assert Counter(path.parts[-3] for path in folder.rglob("*.png")) == {"train": 4, "val": 4, "test": 4}
    assert all(path.resolve().is_file() for path in folder.rglob("*.png"))


def test_scores_are_those_of_the_definitions():
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.5, 0.5], [1.0, 0.0]])
    found = score(probabilities, np.array([0, 0, 0, 1]))
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    # A probability of zero counts as 1e-7: float32 knows nothing smaller beside 1.
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.5, 1e-7]).mean())


def test_predictions_of_peers_and_of_runs_are_read_alike(tmp_path):
    probabilities = np.array([[0.75, 0.25], [0.25, 0.75]])
    np.savez(tmp_path / "peer.npz", logits=np.log(probabilities), labels=np.array([0, 0]))
    table = tmp_path / "test.csv"
    table.write_text("path,label,predicted,cat,dog\na.png,cat,cat,0.75,0.25\nb.png,cat,dog,0.25,0.75\n")
    for read, labels in (read_peer(tmp_path / "peer.npz"), read_run(table)):
        np.testing.assert_allclose(read, probabilities)
        np.testing.assert_array_equal(labels, [0, 0])


def test_what_is_done_is_not_made_again_unless_it_failed_or_the_code_changed(tmp_path):
    file = tmp_path / "measured.jsonl"
    append_result(file, outcome(BASELINE, code="old"))
    append_result(file, Outcome("words", 1, BASELINE, error="exit status 1", code="new"))
    tasks = [Task(name, 1, BASELINE) for name in ("clipart", "words", "icons")]
    done = read_results(file, tmp_path / "none.jsonl")
    assert pending(tasks, done, retry_failed=False) == tasks[2:]
    assert pending(tasks, done, retry_failed=True) == tasks[1:]
    assert pending(tasks, done, retry_failed=False, code="new") == [tasks[0], tasks[2]]


def test_sets_are_the_random_unit_of_the_interval():
    results = results_of(
        outcome(BASELINE, "clipart", 1, accuracy=0.5),
        outcome(BASELINE, "clipart", 2, accuracy=0.7),
        outcome("auto", "clipart", 1, accuracy=0.54, cpu_seconds=20.0),
        outcome("auto", "clipart", 2, accuracy=0.70, cpu_seconds=20.0),
        outcome(BASELINE, "words", 1, accuracy=0.5, log_loss=2.0),
        outcome("auto", "words", 1, accuracy=0.5, log_loss=1.0, cpu_seconds=5.0),
        outcome("auto", "words", 2, accuracy=0.9),
        outcome("auto", "icons", 1, error="failed"),
    )
    found = compare("auto", results, ["clipart", "words", "icons"])
    # Means over the splits of each set first: 2 points on clipart, 0 on words.
    assert {name: one.accuracy for name, one in found.sets.items()} == pytest.approx({"clipart": 2.0, "words": 0.0})
    assert found.mean == pytest.approx(1.0)
    # One degree of freedom: the 97.5% quantile of t is 12.706, the standard error of (2, 0) is 1.
    assert found.half_width == pytest.approx(12.706, abs=1e-3)
    assert found.log_losses == pytest.approx([0.0, -1.0])
    assert found.worst == ("words", pytest.approx(0.0))
    assert found.time_ratio == pytest.approx(1.0)


def test_repeats_on_a_split_are_averaged():
    results = results_of(
        outcome(BASELINE, repeat=1, accuracy=0.4),
        outcome(BASELINE, repeat=2, accuracy=0.6),
        outcome("auto", accuracy=0.55),
    )
    found = compare("auto", results, ["clipart"])
    assert found.mean == pytest.approx(5.0)
    assert found.half_width is None


def test_without_a_common_split_there_is_no_comparison():
    assert compare("auto", results_of(outcome(BASELINE, split=1), outcome("auto", split=2)), ["clipart"]) is None


def test_the_table_shows_differences_in_bold_only_where_the_interval_excludes_zero():
    results = results_of(
        *(outcome(BASELINE, name, accuracy=0.5) for name in ("clipart", "words")),
        *(outcome("probe", name, accuracy=0.6, log_loss=0.5) for name in ("clipart", "words")),
        *(outcome("linear_probe", name, accuracy=value) for name, value in (("clipart", 0.4), ("words", 0.7))),
    )
    lines = {
        line.split(" | ")[0].strip("| "): line for line in results_table(results, ["clipart", "words"]).splitlines()
    }
    assert "| **+10.0 ± 0.0** | +10.0 | -0.500 | 2 of 2 |" in lines["probe"]
    assert "| +5.0 ± 190.6 |" in lines["linear_probe"] and "| clipart -10.0 |" in lines["linear_probe"]
    assert "| baseline |" in lines[BASELINE]


def test_the_tables_go_between_the_markers_and_failures_are_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("\n".join(["before", *markers("sets"), *markers("results"), "after"]))
    write_tables(results_of(outcome(BASELINE), Outcome("words", 2, "probe", error="exit status 1")), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after")
    assert sets_table() in text
    assert "Failed: probe on words, split 2." in text


def test_a_page_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no lines"):
        write_tables({}, page)
    assert page.read_text() == "nothing"


def test_the_shipped_page_has_the_markers_and_the_sets():
    text = PAGE.read_text(encoding="utf-8")
    assert sets_table() in text
    assert all(marker in text for marker in markers("results"))

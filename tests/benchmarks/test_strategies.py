import csv
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from benchmarks.strategies import table
from benchmarks.strategies.results import Outcome, Task, append_result, only_writer, pending, read_results
from benchmarks.strategies.rows import BASELINE, EPOCHS, IMBALANCE_ROWS, ROWS, describe_changes, find_baseline
from benchmarks.strategies.runner import recipe_of
from benchmarks.strategies.sets import data_section
from benchmarks.strategies.table import BEGIN, END, compare, write_table

LAYER_DECAY = next(row for row in ROWS if row.name == "layer_decay 0.8")


def outcome(row, set_name="clipart", seed=1, *, accuracy=0.5, cpu_seconds=10.0, **more):
    return Outcome(
        set_name, row, seed, accuracy, accuracy, log_loss=1.0, val_accuracy=0.5, cpu_seconds=cpu_seconds, **more
    )


def results_of(*outcomes):
    return {one.task: one for one in outcomes}


@pytest.fixture
def digits_table(tmp_path):
    def read(name, seed=1):
        source = data_section(name, seed, tmp_path)["source"]
        with Path(source).open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.mark.parametrize("row", [row for row in ROWS if row.sets[0] == "clipart"], ids=lambda row: row.name)
def test_each_row_is_a_valid_recipe_of_as_many_epochs_as_all_others(row, tmp_path):
    recipe = recipe_of(Task(1, "clipart", row.name), tmp_path)
    assert sum(stage.epochs for stage in recipe.train.stages) == EPOCHS
    base = recipe_of(Task(1, "clipart", BASELINE), tmp_path)
    assert (recipe == base) == (row.name == BASELINE)


def test_names_of_rows_are_unique_and_each_has_its_baseline():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {find_baseline(row) for row in ROWS} == {BASELINE, "linear_probe", IMBALANCE_ROWS[0].name}


def test_a_row_says_what_it_changes_as_a_recipe_spells_it():
    row = next(row for row in ROWS if row.name == "horizontal_flip at test")
    assert describe_changes(row) == "`evaluate.tta: [horizontal_flip]`"


def test_digits_are_drawn_in_equal_numbers_into_splits_without_a_common_image(digits_table):
    rows = digits_table("digits")
    assert len({row["path"] for row in rows}) == len(rows)
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert counts == {
        (split, str(d)): n for (split, n), d in product({"train": 20, "val": 8, "test": 40}.items(), range(10))
    }


def test_the_long_tail_falls_by_ten_in_training_only(digits_table):
    rows = digits_table("digits_long_tail")
    train = Counter(row["label"] for row in rows if row["split"] == "train")
    assert (max(train.values()), min(train.values())) == (50, 5)
    assert set(Counter(row["label"] for row in rows if row["split"] == "test").values()) == {40}


def test_another_seed_draws_other_images_and_the_same_seed_the_same(digits_table):
    first, again, other = (digits_table("digits", seed) for seed in (1, 1, 2))
    assert first == again != other


def test_what_is_done_is_not_made_again_and_failures_only_when_asked(tmp_path):
    file = tmp_path / "results.jsonl"
    append_result(file, outcome(BASELINE))
    append_result(file, Outcome("digits", BASELINE, 1, error="DivergedError"))
    tasks = [Task(1, name, BASELINE) for name in ("clipart", "digits", "fashion")]
    assert pending(tasks, read_results(file), retry_failed=False) == tasks[2:]
    assert pending(tasks, read_results(file), retry_failed=True) == tasks[1:]


def test_a_second_writer_is_flagged(tmp_path):
    file = tmp_path / "results.jsonl"
    with only_writer(file), pytest.raises(SystemExit, match="another run"), only_writer(file):
        pass


def test_differences_are_paired_by_set_and_seed():
    results = results_of(
        outcome(BASELINE, seed=1, accuracy=0.5),
        outcome(BASELINE, seed=2, accuracy=0.7),
        outcome(LAYER_DECAY.name, seed=1, accuracy=0.52, cpu_seconds=20.0),
        outcome(LAYER_DECAY.name, seed=2, accuracy=0.7, cpu_seconds=5.0),
        outcome(LAYER_DECAY.name, seed=3, accuracy=0.0),
        outcome(LAYER_DECAY.name, "digits", error="failed"),
    )
    found = compare(LAYER_DECAY, results)
    assert found.differences == pytest.approx((2.0, 0.0))
    assert found.score == "1/1/0"
    # The least of the seeds, 5 seconds, against the baseline's 10.
    assert found.time_ratio == pytest.approx(0.5)
    # One degree of freedom: the 97.5% quantile of t is 12.706, the standard error of (2, 0) is 1.
    assert found.half_width == pytest.approx(12.706, abs=1e-3)


def test_one_pair_has_no_interval_and_none_has_no_comparison():
    results = results_of(outcome(BASELINE), outcome(LAYER_DECAY.name, accuracy=0.6))
    assert compare(LAYER_DECAY, results).half_width is None
    assert compare(LAYER_DECAY, results_of(outcome(LAYER_DECAY.name))) is None


def test_the_table_goes_between_the_markers_and_names_failures(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    failed = Outcome("digits", LAYER_DECAY.name, 2, error="DivergedError: no")
    write_table(results_of(outcome(BASELINE, accuracy=0.625), failed), page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "0.625" in text
    assert "Failed: layer_decay 0.8 on digits, seed 2." in text


def test_a_page_without_markers_is_left_alone(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(SystemExit, match="has no lines"):
        write_table({}, page)
    assert page.read_text() == "nothing"


def test_the_shipped_page_has_the_markers():
    from benchmarks.strategies.__main__ import PAGE

    text = PAGE.read_text(encoding="utf-8")
    assert text.index(table.BEGIN) < text.index(table.END)

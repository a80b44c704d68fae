from __future__ import annotations

from pathlib import Path

import pytest

from imagetune.cli.render.search import format_files, format_nothing_left, format_search
from imagetune.recipe.loading import load_recipe
from imagetune.search.proposers.finalists import rank_candidates
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.refit import Refit
from imagetune.search.session import Search

RATE = ("train", "stages", 0, "learning_rate")
BATCH = ("train", "batch_size")
RECIPE = """\
name: drawings
data: {source: images}
train:
  stages:
    - {name: head, unfreeze: none, epochs: 4, learning_rate: 1e-3}
search: {algorithm: random, objective: f1}
"""


def result(name, objective, *, rate=0.001, status="completed", error="", **about):
    trial = Trial(name, {RATE: rate, BATCH: 32}, **about)
    return TrialResult(trial, status, objective, 0.0, 75.0, 4, None if objective is None else 3, error=error)


@pytest.fixture
def told(tmp_path):
    def told(*results, width=None, settings=None):
        (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
        recipe = load_recipe(tmp_path / "recipe.yaml").recipe
        candidates = tuple(rank_candidates(results, "max"))
        best = Refit(tmp_path / "best", None, ())
        search = Search(tmp_path, recipe, (RATE, BATCH), results, candidates, best, len(results), settings=settings)
        return list(format_search(search, recipe_file=tmp_path / "recipe.yaml", width=width))

    return told


def test_trials_come_from_best_to_worst(told):
    lines = told(result("001", 0.5, rate=0.1), result("002", 0.9, rate=0.2), result("003", 0.7, rate=0.3))
    assert lines[0] == "trials      3: 3 completed; by F1 on validation"
    assert [line.split()[:2] for line in lines if line.startswith("  00")] == [
        ["002", "0.9000"],
        ["003", "0.7000"],
        ["001", "0.5000"],
    ]
    assert lines[-2:] == ["winner      trial 002, F1 0.9000", "settings    learning_rate 0.2, batch_size 32"]


def test_failures_are_grouped_by_their_reason(told):
    diverged = "diverged: stage 'head': the loss is nan at step {} with a learning rate of {}"
    lines = told(
        result("001", 0.5),
        result("002", None, status="failed", error="resources: out of memory"),
        result("003", None, status="failed", error=diverged.format(31, 0.5)),
        result("004", None, status="failed", error=diverged.format(7, "1e-2")),
    )
    failed = [line for line in lines if line.startswith("failed")]
    assert failed == [
        f"failed      003, 004: {diverged.format(31, 0.5)}",
        "failed      002: resources: out of memory",
    ]


def test_finalists_are_shown_with_mean_and_spread(told):
    lines = told(
        result("001", 0.9, rate=0.1),
        result("002", 0.8, rate=0.2),
        result("001-2", 0.5, rate=0.1, phase="final", seed=8, repeats="001"),
        result("002-2", 0.8, rate=0.2, phase="final", seed=8, repeats="002"),
    )
    at = lines.index("finalists   2 settings, each trained with several seeds; by the mean")
    told_rows = [" ".join(line.split()) for line in lines[at + 1 :]]
    assert "002 0.8000 0.8000 to 0.8000 2 0.2 32" in told_rows
    assert "001 0.7000 0.5000 to 0.9000 2 0.1 32" in told_rows
    assert "winner      trial 002, mean F1 0.8000 over 2 seeds, standard deviation 0.0000" in lines


@pytest.mark.parametrize(
    ("algorithm", "key"), [("random", "search.trials=N"), ("grid", "search.trials=N"), ("sweep", "search.repeats=N")]
)
def test_a_finished_search_names_the_key_that_gives_it_more_to_do(algorithm, key):
    assert format_nothing_left(algorithm).endswith(f"with -o {key}")
    assert format_nothing_left("hyperband") == "nothing was left to do"


def test_a_search_whose_values_are_all_tried_says_so_and_asks_for_no_more_trials(told):
    tried = [result(f"00{number}", 0.5 + number / 10, rate=number / 10) for number in (1, 2, 3)]
    again = result("001-2", 0.5, rate=0.1, phase="final", seed=8, repeats="001")
    exhausted = "exhausted   all 3 settings of the search spaces have been tried, of the"
    assert told(*tried, again, settings=3)[1].startswith(exhausted)
    assert not any(line.startswith("exhausted") for line in told(*tried, again, settings=4))
    assert not any(line.startswith("exhausted") for line in told(*tried, again, settings=None))
    assert format_nothing_left("random", exhausted=True).endswith("more trials need more values in the search spaces")


def test_a_hundred_trials_do_not_fill_the_screen(told):
    lines = told(*(result(f"{number:03d}", number / 200, rate=number) for number in range(1, 101)))
    assert len(lines) < 30
    assert "  and 80 more in search.csv" in lines


def test_only_files_that_are_there_are_named(tmp_path):
    (tmp_path / "search.csv").touch()
    assert list(format_files(tmp_path, tmp_path / "best")) == [f"all trials  {Path(tmp_path / 'search.csv')}"]

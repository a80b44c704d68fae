from __future__ import annotations

import csv
import json
import math
import signal
from dataclasses import replace

import pytest

from imagetune.errors import CheckpointError, RecipeError, StoppedError
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, SearchConfig
from imagetune.search.executors.protocol import Outcome, Task
from imagetune.search.loop import Runner, run_trials
from imagetune.search.proposers.finalists import rank_candidates
from imagetune.search.proposers.oracle import OracleProposer
from imagetune.search.proposers.protocol import ListProposer
from imagetune.search.records.journal import list_results
from imagetune.search.records.table import describe_search, open_records, write_table
from imagetune.search.records.trial import Trial
from tests.helpers.executors import Here

RATE = ("train", "stages", 0, "learning_rate")
DEPTH = ("train", "stages", 1, "unfreeze")
BATCH = ("train", "batch_size")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    DEPTH: ChoiceSpace(search="choice", values=("none", "last 2 blocks", None)),
    BATCH: IntSpace(search="int", low=8, high=64, step=8),
}
TRIALS = {"random": 12, "grid": 120, "bayesian": 7, "hyperband": 1}
ALGORITHMS = list(TRIALS)


def surface(trial):
    """Best at a rate of 1e-3 and a batch of 16; longer trials are a little better."""
    values = trial.values
    return 1 - abs(math.log10(values[RATE]) + 3) / 4 - abs(values[BATCH] - 16) / 480 + 0.001 * (trial.epochs or 0)


class Watcher:
    """Counts what it hears."""

    def __init__(self):
        self.started, self.ended = [], []

    def trial_started(self, trial, task):
        self.started.append(trial.trial_id)

    def trial_ended(self, result, task):
        self.ended.append(result.trial.trial_id)

    def tick(self):
        pass


class Bench:
    """The loop of a search in a folder, with a function of a trial in the place of its training."""

    def __init__(self, folder, judge=surface, *, algorithm="random", seed=0, spaces=SPACES, slots=1, **settings):
        self.folder, self.judge, self.spaces = folder, judge, spaces
        self.config = SearchConfig(algorithm=algorithm, **({"trials": TRIALS[algorithm], "max_epochs": 4} | settings))
        self.seed, self.slots, self.watcher = seed, slots, Watcher()
        self.trials = {}
        self.pick = lambda _open: 0

    def task_of(self, trial):
        self.trials[trial.trial_id] = trial
        recipe = Recipe.model_validate({"data": {"source": "images"}})
        return Task(trial.trial_id, self.folder / "trials" / trial.trial_id, recipe, trial.epochs)

    def work(self, task):
        found = self.judge(self.trials[task.trial_id])
        return found if isinstance(found, Outcome) else Outcome("completed", found, seconds=0.5)

    def run(self, proposer=None, *, known=(), check=lambda: None, may_start=lambda _results: True):
        about = describe_search(self.config, self.spaces, seed=self.seed)
        journal, table = open_records(self.folder, about, list(self.spaces))
        past = journal.read()
        write_table(table, list_results(past))
        if proposer is None:
            proposer = OracleProposer(self.config, self.spaces, seed=self.seed, epochs=4)
        executor = Here(self.work, slots=self.slots, pick=self.pick)
        runner = Runner(executor, self.task_of, journal, table, self.watcher, check, may_start)
        return run_trials(proposer, runner, known=known, past=past)

    def rows(self):
        with (self.folder / "search.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def outcomes(results):
    return [(each.trial, each.status, each.objective) for each in results]


def in_order(results):
    return sorted(outcomes(results), key=lambda each: each[0].trial_id)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_trial_is_in_the_table_and_the_best_is_found(tmp_path, algorithm):
    bench = Bench(tmp_path, algorithm=algorithm)
    results = bench.run()
    best = rank_candidates(results, "max")[0]
    assert best.mean == max(each.objective for each in results if each.trial.epochs == best.trial.epochs)
    rows = bench.rows()
    assert [float(row["objective"]) for row in rows] == [each.objective for each in results]
    assert list(rows[0])[:4] == ["trial", "phase", "status", "objective"]
    assert list(rows[0])[-4:] == [
        *("train.stages[0].learning_rate", "train.stages[1].unfreeze", "train.batch_size", "error"),
    ]
    assert bench.watcher.ended == [each.trial.trial_id for each in results]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_seed_0_repeats_the_search(tmp_path, algorithm):
    first = Bench(tmp_path / "a", algorithm=algorithm).run()
    assert outcomes(Bench(tmp_path / "b", algorithm=algorithm).run()) == outcomes(first)
    other = Bench(tmp_path / "c", algorithm=algorithm, seed=1).run()
    assert algorithm == "grid" or outcomes(other) != outcomes(first)


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_two_at_a_time_find_what_one_at_a_time_does(tmp_path, algorithm):
    alone = Bench(tmp_path / "one", algorithm=algorithm).run()
    bench = Bench(tmp_path / "two", algorithm=algorithm, slots=2)
    bench.pick = lambda count: count - 1  # the first one takes longer than all others
    assert in_order(bench.run()) == in_order(alone)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_as_many_run_at_a_time_as_there_are_slots(tmp_path, algorithm):
    bench = Bench(tmp_path, algorithm=algorithm, slots=3)
    assert len({each.trial.trial_id for each in bench.run()}) == len(bench.rows())


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf, None])
def test_a_metric_that_is_not_finite_fails_the_trial_and_is_never_best(tmp_path, metric):
    bench = Bench(tmp_path, lambda trial: metric if trial.trial_id in ("001", "005") else 0.5)
    results = bench.run()
    assert [each.trial.trial_id for each in results if each.status == "failed"] == ["001", "005"]
    assert rank_candidates(results, "min")[0].mean == 0.5
    assert results[0].error == f"the objective is {metric}"
    assert bench.rows()[0]["objective"] == ""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_search_goes_on_after_more_failures_in_a_row_than_keras_tuner_takes(tmp_path, algorithm):
    def judge(trial):
        return Outcome("failed", error="diverged: NaN") if int(trial.trial_id) <= 4 else surface(trial)

    bench = Bench(tmp_path, judge, algorithm=algorithm)
    results = bench.run()
    assert [each.status for each in results[:4]] == ["failed"] * 4
    assert bench.rows()[0]["error"] == "diverged: NaN"
    assert rank_candidates(results, "max")


def test_a_trial_that_its_recipe_refuses_fails_alone(tmp_path):
    bench = Bench(tmp_path, trials=5)
    task_of = bench.task_of

    def refuse(trial):
        if trial.trial_id == "002":
            raise RecipeError("no such block", where="recipe.yaml:7:3 train.stages[1].unfreeze")
        return task_of(trial)

    bench.task_of = refuse
    results = bench.run()
    assert [each.status for each in results] == ["completed", "failed", "completed", "completed", "completed"]
    assert results[1].error == "recipe: recipe.yaml:7:3 train.stages[1].unfreeze: no such block"
    assert "002" not in bench.watcher.started


def test_a_point_proposed_again_is_not_run_again(tmp_path):
    point = {RATE: 1e-3, DEPTH: "none", BATCH: 8}
    trials = [
        Trial("001", point),
        Trial("002", point),
        Trial("003", point, seed=5),
        Trial("004", {**point, BATCH: 8.0}),
    ]
    bench = Bench(tmp_path)
    results = bench.run(ListProposer(trials))
    assert [each.status for each in results] == ["completed", "repeated", "completed", "completed"]
    assert results[1].objective == results[0].objective
    assert bench.watcher.started == ["001", "003", "004"]


def test_nothing_goes_on_from_a_failed_trial(tmp_path):
    def judge(trial):
        return Outcome("failed", error="diverged: NaN") if trial.epochs < 4 else 0.5

    results = Bench(tmp_path, judge, algorithm="hyperband", factor=2).run()
    gone_on = [each for each in results if each.trial.continues]
    assert gone_on
    assert all("its lower rung, failed" in each.error for each in gone_on)
    assert rank_candidates(results, "max")[0].trial.epochs == 4


def test_a_stopped_trial_counts_with_what_it_had_reached(tmp_path):
    stopped = Outcome("stopped", 0.9, epochs=3, best_epoch=2)
    results = Bench(tmp_path, lambda trial: stopped if trial.trial_id == "002" else 0.5, trials=3).run()
    assert results[1].status == "stopped"
    assert rank_candidates(results, "max")[0].trial.trial_id == "002"


def test_a_trial_whose_machine_is_lost_is_run_again(tmp_path):
    lost = []

    def judge(trial):
        if trial.trial_id == "002" and not lost:
            lost.append(trial)
            return Outcome("lost")
        return surface(trial)

    bench = Bench(tmp_path, judge, trials=4)
    results = bench.run()
    assert bench.watcher.started.count("002") == 2
    assert in_order(results) == in_order(Bench(tmp_path / "whole", trials=4).run())


def test_no_trial_starts_once_the_budget_is_used_up(tmp_path):
    results = Bench(tmp_path).run(may_start=lambda results: len(results) < 3)
    assert len(results) == 3


STOPS = [KeyboardInterrupt(), StoppedError(signal.SIGTERM), ZeroDivisionError()]


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_stopped_search_goes_on_where_it_was(tmp_path, algorithm, slots):
    whole = Bench(tmp_path / "whole", algorithm=algorithm, slots=slots).run()
    cut = Bench(tmp_path / "cut", algorithm=algorithm, slots=slots)

    def check():
        if len(cut.watcher.ended) == 4:
            raise STOPS[0]

    with pytest.raises(KeyboardInterrupt):
        cut.run(check=check)
    ended, started = list(cut.watcher.ended), list(cut.watcher.started)
    assert len(ended) == len(cut.rows()) == 4
    again = Bench(tmp_path / "cut", algorithm=algorithm, slots=slots)
    results = again.run()
    assert not set(ended) & set(again.watcher.started)
    assert again.watcher.started[: len(started) - 4] == [name for name in started if name not in ended]
    assert len(results) == len(whole)
    if slots == 1:
        assert outcomes(results) == outcomes(whole)
    else:
        # What ran beside the fourth ends in another order: the same trials for those that don't look at results.
        assert algorithm not in ("random", "grid") or in_order(results) == in_order(whole)


def test_what_an_interrupted_trial_left_is_gone_before_it_runs_again(tmp_path):
    bench = Bench(tmp_path, trials=2)
    left = bench.folder / "trials" / "002" / "status.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    bench.run()
    assert not left.exists()


def test_a_finished_search_can_be_given_more_trials(tmp_path):
    Bench(tmp_path, trials=4).run()
    more = Bench(tmp_path, trials=9)
    assert len(more.run()) == 9
    assert len(more.watcher.started) == 5


def test_a_line_cut_short_by_a_crash_is_run_again(tmp_path):
    whole = Bench(tmp_path, trials=5).run()
    path = tmp_path / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = Bench(tmp_path, trials=5)
    assert outcomes(again.run()) == outcomes(whole)
    assert again.watcher.started == ["005"]
    assert len(again.rows()) == 5


@pytest.mark.parametrize("corruption", ["", "{}", '{"event": "ended", "trial_id": "099"}', "\x00"])
def test_a_corrupted_line_in_the_middle_is_refused_with_its_place(tmp_path, corruption):
    Bench(tmp_path, trials=3).run()
    path = tmp_path / "journal.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = corruption
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError) as error:
        Bench(tmp_path, trials=3).run()
    assert error.value.where == f"{path}:3"
    assert error.value.exit_code == 6


def test_a_journal_that_another_version_would_not_write_is_refused(tmp_path):
    Bench(tmp_path, trials=3).run()
    bench = Bench(tmp_path, trials=3)
    with pytest.raises(CheckpointError, match="trial 001 of the journal is not what this version would propose"):
        bench.run(ListProposer([Trial("007", {})]))


def test_a_changed_space_is_refused_and_named(tmp_path):
    Bench(tmp_path).run()
    changed = SPACES | {BATCH: IntSpace(search="int", low=8, high=128, step=8)}
    with pytest.raises(CheckpointError, match=r"the search changed since: train\.batch_size was .*'high': 64") as error:
        Bench(tmp_path, spaces=changed).run()
    assert error.value.exit_code == 6
    with pytest.raises(CheckpointError, match="algorithm was random, now it is bayesian"):
        Bench(tmp_path, algorithm="bayesian").run()


def test_values_come_back_from_the_journal_with_their_types(tmp_path):
    mixed = ("none", None, True, 1, 1.0, "1", "null", 'a, "b"\nc', "NaN", "[1]", [1, "a"], {"name": "sgd"})
    trials = [Trial(f"{number:03d}", {DEPTH: value}) for number, value in enumerate(mixed, start=1)]
    spaces = {DEPTH: ChoiceSpace(search="choice", values=("a", "b"))}
    first = Bench(tmp_path, lambda _trial: 0.5, spaces=spaces).run(ListProposer(trials))
    again = Bench(tmp_path, lambda _trial: 1 / 0, spaces=spaces).run(ListProposer(trials))
    read = [each.trial.values[DEPTH] for each in again]
    assert [(type(value), value) for value in read] == [(type(value), value) for value in mixed]
    assert outcomes(first) == outcomes(again)


def test_the_journal_says_what_was_proposed_before_it_runs(tmp_path):
    seen = []

    def judge(trial):
        lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
        seen.append([line["trial_id"] for line in lines if line["event"] == "proposed"][-1])
        return 0.5

    results = Bench(tmp_path, judge, trials=3).run()
    assert seen == [each.trial.trial_id for each in results]


def test_a_later_phase_goes_on_from_the_trials_of_the_first(tmp_path):
    bench = Bench(tmp_path, trials=2)
    first = bench.run()
    journal_free = Bench(tmp_path / "more", trials=2)
    finals = [replace(each.trial, trial_id=f"1{each.trial.trial_id}", phase="final", seed=9) for each in first]
    both = journal_free.run(ListProposer(finals), known=first)
    assert outcomes(both)[:2] == outcomes(first)
    assert [each.trial.phase for each in both[2:]] == ["final", "final"]
    assert all(each.status == "completed" for each in both)

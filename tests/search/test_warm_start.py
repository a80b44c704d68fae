from __future__ import annotations

import json
import shutil

import pytest

from imagetune.core.files import write_json
from imagetune.core.messages import say_nothing
from imagetune.data.splits.splits import write_splits_csv
from imagetune.errors import CheckpointError, RecipeError
from imagetune.recipe.loading import load_recipe
from imagetune.run_folder.folder import write_recipe
from imagetune.run_folder.lock import build_lock_document
from imagetune.runs.prepare import read_data
from imagetune.search.choose_proposer import build_proposer
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.journal import Ended, Journal, Proposed
from imagetune.search.records.table import describe_search, open_records
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.warm_start import load_warm_start, read_warm_start, write_warm_start

RATE = ("train", "stages", 0, "learning_rate")
OPTIMIZER = ("train", "optimizer")
BATCH = ("train", "batch_size")
DROPOUT = ("model", "head", "dropout")
SGD = {"name": "sgd", "momentum": 0.5}
RECIPE = """\
data: {{source: {source}, image_size: 32, workers: 0}}
model: {{head: {{dropout: {dropout}}}}}
train:
  batch_size: {batch}
  optimizer: {optimizer}
  stages: [{{name: head, epochs: {epochs}, learning_rate: {rate}}}]
search: {search}
"""
DEFAULTS = {
    "dropout": 0.2,
    "batch": 32,
    "optimizer": "{search: choice, values: [adamw, {name: sgd, momentum: 0.5}]}",
    "epochs": 4,
    "rate": "{search: log_uniform, low: 1e-4, high: 1e-1}",
    "search": "{algorithm: random}",
}
TRIED = [
    ({RATE: 1e-3, OPTIMIZER: "adamw"}, 0.7),
    ({RATE: 1e-2, OPTIMIZER: SGD}, 0.9),
    ({RATE: 5e-2, OPTIMIZER: SGD}, None),
    ({RATE: 3e-4, OPTIMIZER: "adamw"}, 0.5),
]


@pytest.fixture
def load(tmp_path, images):
    def load(name="now", **changes):
        path = tmp_path / f"{name}.yaml"
        path.write_text(RECIPE.format(source=images, **{**DEFAULTS, **changes}), encoding="utf-8")
        return load_recipe(path)

    return load


@pytest.fixture(scope="module")
def data(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(RECIPE.format(source=images, **DEFAULTS), encoding="utf-8")
    return read_data(load_recipe(path).recipe, say=say_nothing)


@pytest.fixture
def earlier(tmp_path, load, data):
    """The folder of an earlier search, as it is left behind."""

    def earlier(tried=TRIED, *, name="earlier", trial_recipes=True, epochs=(), **changes):
        folder, loaded = tmp_path / name, load("before", **changes)
        folder.mkdir()
        write_recipe(loaded.recipe, folder / "recipe.yaml")
        write_splits_csv(data.splits, folder / "splits.csv")
        write_json(
            folder / "lock.json",
            build_lock_document(seed=loaded.recipe.seed, weights={}, images=data.audit.hashes, plugins={}),
        )
        about = describe_search(loaded.recipe.search, loaded.spaces, seed=0)
        journal, _ = open_records(folder, about, list(loaded.spaces))
        for number, (values, objective) in enumerate(tried):
            trial = Trial(f"{number + 1:03d}", values, epochs=epochs[number] if epochs else None)
            journal.add(Proposed(trial))
            status = "failed" if objective is None else "completed"
            journal.add(Ended(TrialResult(trial, status, objective, 0.0, 1.0)))
            if trial_recipes:
                own = folder / "trials" / f"trial-{trial.trial_id}" / "recipe.yaml"
                own.parent.mkdir(parents=True)
                write_recipe(loaded.with_values(values).recipe, own)
        return folder

    return earlier


@pytest.fixture
def taken(load, data):
    """What is taken over, and what was said."""

    def taken(folder, **changes):
        said = []
        search = changes.pop("search", "{algorithm: random, warm_start: %s}") % folder
        loaded = load(search=search, **changes)
        warm = load_warm_start(loaded, data, resumed=None, say=lambda *message: said.append(message))
        return [(each.values, each.objective) for each in warm.known], said

    return taken


@pytest.mark.parametrize("trial_recipes", [True, False])
def test_trials_with_a_metric_are_taken_over(earlier, taken, trial_recipes):
    folder = earlier(trial_recipes=trial_recipes)
    known, said = taken(folder)
    assert known == [
        ({RATE: 1e-2, OPTIMIZER: SGD}, 0.9),
        ({RATE: 1e-3, OPTIMIZER: "adamw"}, 0.7),
        ({RATE: 3e-4, OPTIMIZER: "adamw"}, 0.5),
    ]
    assert said == [("warm start", f"3 of 3 settings of {folder} are reused")]


def test_several_trainings_of_a_setting_count_with_their_mean(earlier, taken):
    folder = earlier([({RATE: 1e-3, OPTIMIZER: "adamw"}, 0.7), ({RATE: 1e-2, OPTIMIZER: SGD}, 0.6)])
    journal = Journal(folder / "journal.jsonl")
    again = Trial("001-2", TRIED[0][0], phase="final", seed=1, repeats="001")
    journal.add(Proposed(again))
    journal.add(Ended(TrialResult(again, "completed", 0.8, 0.0, 1.0)))
    known, _ = taken(folder)
    assert {values[RATE]: objective for values, objective in known} == {1e-3: pytest.approx(0.75), 1e-2: 0.6}


def test_what_lies_outside_the_present_spaces_is_left(earlier, taken):
    folder = earlier()
    known, said = taken(folder, rate="{search: log_uniform, low: 5e-4, high: 1e-1}")
    assert [values[RATE] for values, _ in known] == [1e-2, 1e-3]
    assert said == [
        (
            "warm start",
            f"2 of 3 settings of {folder} are reused; 1 don't fit: "
            "train.stages[0].learning_rate was 0.0003, which isn't among the values searched",
        )
    ]


def test_what_was_fixed_then_may_be_searched_now(earlier, taken):
    known, _ = taken(
        earlier(), batch="{search: choice, values: [16, 32]}", dropout="{search: uniform, low: 0, high: 0.5}"
    )
    assert known[0] == ({DROPOUT: 0.2, BATCH: 32, OPTIMIZER: SGD, RATE: 1e-2}, 0.9)


def test_a_section_that_was_fixed_then_is_found_among_the_choices(earlier, taken):
    folder = earlier([({RATE: 1e-3}, 0.6)], optimizer="{name: sgd, momentum: 0.5}")
    known, _ = taken(folder)
    assert known == [({OPTIMIZER: SGD, RATE: 1e-3}, 0.6)]


def test_what_is_fixed_now_must_be_what_it_was(earlier, taken):
    known, said = taken(earlier(), optimizer="adamw")
    assert known == [({RATE: 1e-3}, 0.7), ({RATE: 3e-4}, 0.5)]
    assert '1 don\'t fit: train.optimizer.name was "sgd", now it is "adamw"' in said[0][1]


def test_a_conditional_space_that_was_not_in_force_stays_out(earlier, taken):
    decay = "{search: uniform, low: 0.0, high: 0.9, default: 0.2, when: {train.optimizer: adamw}}"
    folder = earlier(
        [({RATE: 1e-2, OPTIMIZER: SGD}, 0.9), ({RATE: 1e-2, OPTIMIZER: "adamw", DROPOUT: 0.4}, 0.8)], dropout=decay
    )
    known, _ = taken(folder, dropout=decay)
    assert known == [({RATE: 1e-2, OPTIMIZER: SGD}, 0.9), ({RATE: 1e-2, OPTIMIZER: "adamw", DROPOUT: 0.4}, 0.8)]


def test_lower_rungs_of_hyperband_are_left(earlier, taken):
    tried = [({RATE: rate, OPTIMIZER: "adamw"}, rate) for rate in (1e-3, 2e-3, 3e-3)]
    known, _ = taken(earlier(tried, epochs=(1, 1, 4), search="{algorithm: hyperband}"))
    assert [values[RATE] for values, _ in known] == [3e-3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"search": "{algorithm: random, objective: loss, warm_start: %s}"},
            "has objective f1, this search has loss",
        ),
        ({"search": "{algorithm: random, folds: 3, warm_start: %s}"}, "has folds None, this search has 3"),
        (
            {"search": "{algorithm: sweep, warm_start: %s}"},
            "sweep has no warm start: it runs the same trials whatever is known",
        ),
        ({"epochs": 8}, "in the first of 3, train.stages[0].epochs was 4, now it is 8"),
        ({"rate": "{search: choice, values: [1.0, 2.0]}"}, "no trial of"),
    ],
    ids=["objective", "folds", "sweep", "epochs", "spaces"],
)
def test_a_search_that_cannot_be_compared_is_refused_with_its_place(earlier, taken, tmp_path, changes, message):
    folder = earlier()
    with pytest.raises(RecipeError) as caught:
        taken(folder, **changes)
    assert message in caught.value.line()
    assert caught.value.where.startswith(f"{tmp_path / 'now.yaml'}:7:")


def test_other_splits_are_refused(earlier, taken):
    folder = earlier()
    table = (folder / "splits.csv").read_text()
    (folder / "splits.csv").write_text(table.replace(",val,", ",train,", 1))
    with pytest.raises(RecipeError, match=r"other images or splits: 1 differ, such as \w+/"):
        taken(folder)


def test_other_images_under_the_same_names_are_refused(earlier, taken):
    folder = earlier()
    lock = json.loads((folder / "lock.json").read_text())
    first, second, *_ = sorted(lock["images"])
    lock["images"][first] = lock["images"][second]
    (folder / "lock.json").write_text(json.dumps(lock))
    with pytest.raises(RecipeError, match=r"other images or splits: 1 differ, such as blue/blue00\.png"):
        taken(folder)


def test_images_that_lay_elsewhere_then_are_the_same(earlier, taken, images):
    folder = earlier()
    for name in ("lock.json", "recipe.yaml"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace(str(images), "/another/machine/colours"))
    assert len(taken(folder)[0]) == 3


@pytest.mark.parametrize("name", ["lock.json", "splits.csv"])
def test_a_search_that_has_lost_its_images_is_refused(earlier, taken, name):
    folder = earlier()
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match="No such file") as caught:
        taken(folder)
    assert caught.value.where == str(folder / name)


def test_a_search_without_a_journal_is_no_search_without_metrics(earlier, taken):
    folder = earlier()
    (folder / "journal.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"has no journal\.jsonl") as caught:
        taken(folder)
    assert caught.value.where == str(folder)


def test_another_seed_and_other_tracking_are_no_difference(earlier, taken, load):
    folder = earlier()
    for own in folder.rglob("recipe.yaml"):
        own.write_text(
            own.read_text().replace("seed: 0\ndata", "seed: 8\ndata").replace("enabled: true", "enabled: false")
        )
    assert len(taken(folder)[0]) == 3


def test_a_folder_without_a_search_is_named(tmp_path, taken):
    with pytest.raises(CheckpointError, match=r"is no search: it has no search\.json"):
        taken(tmp_path / "nowhere")


def test_the_earlier_search_is_only_read(earlier, taken):
    folder = earlier()
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "prop')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(taken(folder)[0]) == 3
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_resumed_search_repeats_what_it_began_with(earlier, load, data, tmp_path):
    folder, own = earlier(), tmp_path / "own"
    own.mkdir()
    loaded = load(search=f"{{algorithm: bayesian, trials: 8, warm_start: {folder}}}")
    warm = load_warm_start(loaded, data, resumed=None, say=say_nothing)
    write_warm_start(warm, own)
    shutil.rmtree(folder)
    assert load_warm_start(loaded, data, resumed=own, say=say_nothing) == warm

    def proposals():
        proposer = build_proposer(loaded, seed=0, folder=own, past=())
        while not isinstance(trial := proposer.ask(), Turn):
            yield trial
            proposer.tell(trial, trial.values[RATE])

    first = list(proposals())
    assert first == list(proposals())
    assert first[0].values == {RATE: 1e-2, OPTIMIZER: SGD}


def test_a_changed_warm_start_is_refused_on_resume(earlier, load, data, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    loaded = load(search=f"{{algorithm: random, warm_start: {earlier()}}}")
    with pytest.raises(CheckpointError, match=r"began with warm_start \[\], now it is"):
        load_warm_start(loaded, data, resumed=own, say=say_nothing)


def test_a_corrupted_file_is_named(tmp_path):
    (tmp_path / "warm_start.json").write_text(json.dumps({"sources": ["a"]}))
    with pytest.raises(CheckpointError, match="can't be read"):
        read_warm_start(tmp_path)

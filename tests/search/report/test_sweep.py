"""The report's section on a sweep, from the folder that a sweep leaves, and the table of the same."""

import csv
import json

import pytest

from imagetune.cli.render.sweep import format_sweep
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, SearchConfig, UniformSpace
from imagetune.reports.page import html_environment
from imagetune.search.proposers.sweep import compute_sweep_effects, list_sweep_settings, list_sweep_trials
from imagetune.search.records.journal import Ended, Proposed
from imagetune.search.records.table import describe_search, open_records
from imagetune.search.records.trial import TrialResult
from imagetune.search.report.sweep import view_sweep
from imagetune.search.results.reader import read_search
from imagetune.search.results.sweep import format_overrides, write_sweep

RATE, DEPTH = ("train", "stages", 0, "learning_rate"), ("train", "stages", 0, "unfreeze")
BATCH, DECAY = ("train", "batch_size"), ("train", "stages", 0, "layer_decay")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-4, high=1e-1, default=1e-3),
    DEPTH: ChoiceSpace(search="choice", values=("none", "last 2 blocks", "<all>"), default="none"),
    BATCH: IntSpace(search="int", low=8, high=24, step=8),
    DECAY: UniformSpace(
        search="uniform", low=0.5, high=1.0, default=0.75, when={"train.stages.0.unfreeze": ["last 2 blocks"]}
    ),
}
RECIPE = """\
name: colours
data: {source: images}
search: {algorithm: sweep}
train: {stages: [{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-3}]}
"""


def figure(setting, seed):
    """A rate of 0.1 is far better than the default, and 24 images a batch fail."""
    better = 0.2 if setting.values[RATE] == 0.1 else 0.0
    return 0.6 + better + 0.02 * (seed or 0) + 0.001 * (len(str(setting.values)) * 7 % 5) * ((seed or 0) - 1)


def results_of(repeats=3):
    settings = list_sweep_settings(SPACES)
    ended = []
    for index, trial in enumerate(list_sweep_trials(settings, repeats=repeats, seed=0)):
        setting = settings[index % len(settings)]
        if setting.values[BATCH] == 24:
            if trial.repeats is None:
                ended.append(TrialResult(trial, "failed", None, 0.0, 1.0, error="resource: out of memory"))
        else:
            ended.append(TrialResult(trial, "completed", figure(setting, trial.seed), 0.0, 1.0))
    return ended


def folder_of(path, results, algorithm="sweep"):
    path.mkdir()
    (path / "recipe.yaml").write_text(RECIPE)
    config = SearchConfig(algorithm=algorithm)
    journal, _ = open_records(path, describe_search(config, SPACES, seed=0), list(SPACES))
    for result in results:
        journal.add(Proposed(result.trial))
        journal.add(Ended(result))
    return path


@pytest.fixture
def effects():
    return compute_sweep_effects(list_sweep_settings(SPACES), results_of(), direction="max")


def test_each_key_has_a_panel_with_its_values_in_order(tmp_path):
    view = view_sweep(read_search(folder_of(tmp_path / "found", results_of())))
    panels = {panel["name"]: panel for panel in view["panels"]}
    assert list(panels) == [
        *("train.stages[0].learning_rate", "train.stages[0].unfreeze", "train.batch_size"),
        "train.stages[0].layer_decay",
    ]
    rates = panels["train.stages[0].learning_rate"]["rows"]
    assert [row["value"] for row in rates] == ["0.0001", "0.001", "0.00316", "0.0178", "0.1"]
    assert [row["word"] for row in rates] == ["can't tell", "default", "can't tell", "can't tell", "better"]
    assert panels["train.stages[0].layer_decay"]["where"] == "train.stages[0].unfreeze=last 2 blocks"
    failed = panels["train.batch_size"]["rows"][-1]
    assert (failed["value"], failed["word"], failed["error"]) == ("24", "failed", "resource: out of memory")


def test_the_page_marks_the_default_and_escapes_names(tmp_path):
    search = read_search(folder_of(tmp_path / "found", results_of()))
    page = html_environment("imagetune.search.report").get_template("sweep.html.jinja").render(view=view_sweep(search))
    assert page.count("<svg") == 4
    assert "<all>" not in page
    assert "-o train.stages.0.learning_rate=0.1" in page


def test_a_sweep_that_has_just_begun_shows_what_there_is(tmp_path):
    view = view_sweep(read_search(folder_of(tmp_path / "found", results_of()[:4])))
    assert view["waiting"] > 0
    assert "no intervals" in view["method"]
    assert view_sweep(read_search(folder_of(tmp_path / "none", []))) is None


def test_another_search_has_no_such_section(tmp_path):
    assert view_sweep(read_search(folder_of(tmp_path / "found", results_of(), algorithm="random"))) is None


def test_the_table_says_what_the_page_says(tmp_path, effects):
    write_sweep(tmp_path, effects)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["key"] == ""
    best = next(row for row in rows if row["value"] == "0.1")
    assert (best["verdict"], best["default"], best["seeds"]) == ("better", "0.001", "3")
    assert float(best["low"]) < float(best["difference"]) < float(best["high"])
    assert json.loads(next(row for row in rows if row["key"] == "train.batch_size")["default"]) == 8
    assert all(None not in row and None not in row.values() for row in rows)


def test_the_screen_names_what_to_combine(effects):
    lines = list(format_sweep(effects, "f1", "max", "colours.yaml"))
    assert lines[0].startswith("sweep       F1 of the defaults")
    assert any("24" in line and "failed: resource: out of memory" in line for line in lines)
    assert lines[-1].strip() == "imagetune fit colours.yaml -o train.stages.0.learning_rate=0.1"


def test_defaults_without_a_metric_are_reported(effects):
    failed = compute_sweep_effects(list_sweep_settings(SPACES), [], direction="max")
    (line,) = format_sweep(failed, "f1", "max", "colours.yaml")
    assert "nothing" in line or "no F1 to compare with" in line
    assert format_overrides(failed, "max") == ""

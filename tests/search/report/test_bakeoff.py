"""The report's section on a bake-off, from the folder that one leaves."""

import re

import pytest

from imagetune.recipe.sections.search import ChoiceSpace, SearchConfig
from imagetune.reports.page import html_environment
from imagetune.search.proposers.bakeoff import list_fine_tunings
from imagetune.search.proposers.finalists import rank_candidates
from imagetune.search.records.journal import Ended, Proposed
from imagetune.search.records.table import describe_search, open_records
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.report.bakeoff import view_bakeoff
from imagetune.search.results.reader import read_search
from imagetune.search.trial_process.probe_file import write_probe

SPACES = {("model", "backbone"): ChoiceSpace(search="choice", values=("large", "small", "gone", "slow"))}
METRICS = {"large": (0.9, 50.0, 90.0), "small": (0.8, 5.0, 10.0), "slow": (0.85, 60.0, 95.0)}
RECIPE = """\
name: colours
data: {source: images}
search: {algorithm: bakeoff}
train: {stages: [{name: head, unfreeze: none, epochs: 1, learning_rate: 1e-3}]}
"""


def probe_of(name):
    value, ms, megabytes = METRICS[name]
    timing = {"value": ms, "median": ms, "most": ms, "rounds": 3}
    cost = {"milliseconds_one": timing, "milliseconds_batch": timing, "batch": 32, "parameters": 10**6}
    return {
        **{"backbone": name, "weights": "imagenet", "image_size": [160, 160], "features": 8, "images": 100},
        **{"objective": "f1", "value": value, "low": value - 0.04, "high": value + 0.04, "confidence": 0.95},
        "left_out_ratio": 0.25,
        "folds": [{"metrics": {"f1": value + shift}} for shift in (-0.02, 0.0, 0.02 * value)],
        "cost": {**cost, "megabytes": megabytes, "device": "cpu:0", "cores": 2},
    }


@pytest.fixture
def folder(tmp_path):
    """Four probes, one failed, and the fine-tuning of the best two, of which the second best probe wins."""
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    journal, _ = open_records(
        tmp_path, describe_search(SearchConfig(algorithm="bakeoff"), SPACES, seed=0), list(SPACES)
    )
    ended = []
    for number, name in enumerate(("large", "small", "gone", "slow"), start=1):
        trial = Trial(f"{number:03d}", {("model", "backbone"): name})
        if name == "gone":
            ended.append(TrialResult(trial, "failed", None, 0.0, 1.0, error="weights: <none>"))
        else:
            place = tmp_path / "trials" / f"trial-{trial.trial_id}"
            place.mkdir(parents=True)
            write_probe(place, probe_of(name))
            ended.append(TrialResult(trial, "completed", METRICS[name][0], 0.0, 1.0))
    tunings = list_fine_tunings(rank_candidates(ended, "max")[:2], repeats=1, seed=0)
    ended += [
        TrialResult(trial, "completed", value, 0.0, 1.0) for trial, value in zip(tunings, (0.7, 0.75), strict=True)
    ]
    for result in ended:
        journal.add(Proposed(result.trial))
        journal.add(Ended(result))
    return tmp_path


def rendered(folder):
    view = view_bakeoff(read_search(folder))
    return html_environment("imagetune.search.report").get_template("bakeoff.html.jinja").render(view=view)


def test_the_front_is_named_and_marked(folder):
    page = rendered(folder)
    assert "Pareto front of F1, time and size: large, small." in page
    assert page.count(">front</span>") == 2


def test_both_drawings_name_every_backbone(folder):
    drawings = re.findall(r"<svg.*?</svg>", rendered(folder), flags=re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        assert all(f">{name}</text>" in drawing for name in METRICS)


def test_fine_tuned_metrics_and_failures_are_shown(folder):
    page = rendered(folder)
    assert "0.7500" in page
    assert "weights: &lt;none&gt;" in page


def test_the_winner_is_the_best_of_the_fine_tuned(folder):
    search = read_search(folder)
    assert search.candidates[0].trial.values == {("model", "backbone"): "slow"}
    assert search.candidates[0].mean == 0.75


def test_a_bake_off_without_a_good_probe_says_why(folder):
    for path in folder.rglob("probe.json"):
        path.unlink()
    page = rendered(folder)
    assert "<svg" not in page
    assert "weights: &lt;none&gt;" in page

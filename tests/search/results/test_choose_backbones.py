"""Which backbones a bake-off fine-tunes, by metric, latency and size."""

import pytest

from imagetune.errors import SearchError
from imagetune.recipe.sections.search import SearchConfig
from imagetune.search.proposers.finalists import rank_candidates
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.choose_backbones import choose_finalists
from imagetune.search.trial_process.probe_file import write_probe

BACKBONE = ("model", "backbone")
# Metric of five folds, milliseconds for an image, megabytes.
PROBES = {
    "best": ((0.90, 0.92, 0.88, 0.91, 0.89), 50.0, 90.0),
    "close": ((0.91, 0.90, 0.89, 0.90, 0.89), 20.0, 95.0),
    "poor": ((0.80, 0.82, 0.79, 0.81, 0.78), 5.0, 10.0),
}


@pytest.fixture
def choose(tmp_path):
    """Return the names of the backbones that are fine-tuned under some keys of the search section."""
    results = []
    for number, (name, (folds, milliseconds, megabytes)) in enumerate(PROBES.items(), start=1):
        folder = tmp_path / "trials" / f"trial-{number:03d}"
        folder.mkdir(parents=True)
        value = sum(folds) / len(folds)
        probe = {"backbone": name, "weights": "imagenet", "image_size": [64, 64], "objective": "f1", "value": value}
        cost = {"milliseconds_one": {"value": milliseconds}, "megabytes": megabytes}
        metrics = [{"metrics": {"f1": metric}} for metric in folds]
        write_probe(folder, {**probe, "confidence": 0.95, "left_out_ratio": 0.25, "folds": metrics, "cost": cost})
        results.append(TrialResult(Trial(f"{number:03d}", {BACKBONE: name}), "completed", value, 0.0, 1.0))

    def chosen(**keys):
        config = SearchConfig(algorithm="bakeoff", **keys)
        candidates = rank_candidates(results, "max")
        found = choose_finalists(candidates, folder=tmp_path, config=config, direction="max")
        return [candidate.trial.values[BACKBONE] for candidate in found]

    return chosen


def test_the_best_probes_are_fine_tuned(choose):
    assert choose(finalists=2) == ["best", "close"]


def test_speed_takes_the_quickest_of_those_within_a_standard_error_of_the_best(choose):
    assert choose(prefer="speed") == ["close"]


def test_size_takes_the_smallest_of_those_as_good(choose):
    assert choose(prefer="size") == ["best"]


def test_a_backbone_above_the_latency_is_not_chosen(choose):
    assert choose(max_latency_ms=30) == ["close", "poor"]


def test_what_is_best_is_judged_among_those_that_are_quick_enough(choose):
    assert choose(max_latency_ms=10, prefer="size") == ["poor"]


def test_a_latency_that_nothing_keeps_names_the_fastest(choose):
    with pytest.raises(SearchError) as caught:
        choose(max_latency_ms=1)
    assert "the fastest is poor with 5.0 ms" in caught.value.what

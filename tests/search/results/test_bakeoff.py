"""The table of a bake-off, from its trials and their probe.json."""

import csv

import numpy as np
import pytest

from imagetune.cli.render.bakeoff import format_bakeoff
from imagetune.errors import RecipeError
from imagetune.evaluation.cross_validation import estimate_fold_mean
from imagetune.recipe.loading import load_recipe
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.bakeoff import check_bakeoff, rank_backbones, write_bakeoff
from imagetune.search.trial_process.probe_file import write_probe

BACKBONE = ("model", "backbone")
FOLDS = {
    "large": (0.90, 0.92, 0.88, 0.91, 0.89),
    "small": (0.80, 0.82, 0.79, 0.81, 0.78),
    "slow": (0.85, 0.86, 0.84, 0.85, 0.85),
}
COSTS = {"large": (50.0, 90.0), "small": (5.0, 10.0), "slow": (60.0, 95.0)}


def probe_of(name, *, size=160, weights="imagenet"):
    value = estimate_fold_mean(np.array(FOLDS[name]), left_out=0.25, confidence=0.95)
    ms, megabytes = COSTS[name]
    timing = {"value": ms, "median": ms, "most": ms, "rounds": 3}
    return {
        "backbone": name,
        "weights": weights,
        "image_size": [size, size],
        "features": 8,
        "images": 100,
        "objective": "f1",
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "confidence": 0.95,
        "left_out_ratio": 0.25,
        "folds": [{"train": 60, "val": 20, "left_out": 20, "metrics": {"f1": metric}} for metric in FOLDS[name]],
        "cost": {
            "milliseconds_one": timing,
            "milliseconds_batch": {**timing, "value": ms / 4},
            "batch": 32,
            "parameters": int(megabytes * 250_000),
            "megabytes": megabytes,
            "device": "cpu:0",
            "cores": 2,
        },
    }


@pytest.fixture
def results(tmp_path):
    """Four probes, one of them failed, and two fine-tunings, one of them failed."""
    ended = []
    for number, name in enumerate(("small", "gone", "slow", "large"), start=1):
        trial = Trial(f"{number:03d}", {BACKBONE: name})
        if name == "gone":
            ended.append(TrialResult(trial, "failed", None, 0.0, 1.0, error="weights: not to be had"))
            continue
        folder = tmp_path / "trials" / f"trial-{number:03d}"
        folder.mkdir(parents=True)
        write_probe(folder, probe_of(name))
        ended.append(TrialResult(trial, "completed", float(np.mean(FOLDS[name])), 0.0, 1.0, place="here"))
    large, slow = (
        Trial(f"{number}-1", {BACKBONE: name}, phase="final") for number, name in (("004", "large"), ("003", "slow"))
    )
    ended.append(TrialResult(large, "completed", 0.95, 0.0, 1.0))
    ended.append(TrialResult(Trial("004-2", large.values, phase="final", seed=8), "completed", 0.93, 0.0, 1.0))
    ended.append(TrialResult(slow, "failed", None, 0.0, 1.0, error="resource: out of memory"))
    return ended


def test_the_best_probe_comes_first_and_the_failed_last(tmp_path, results):
    rows = rank_backbones(tmp_path, results, "max")
    assert [row.name for row in rows] == ["large", "slow", "small", "gone"]
    assert [row.front for row in rows] == [True, False, True, False]
    assert [row.tuned for row in rows] == [pytest.approx(0.94), None, None, None]
    assert rows[1].tuning_error == "resource: out of memory"
    assert [row.name for row in rank_backbones(tmp_path, results, "min")] == ["small", "slow", "large", "gone"]


def test_a_probe_whose_details_are_gone_keeps_its_metric(tmp_path, results):
    (tmp_path / "trials" / "trial-004" / "probe.json").unlink()
    rows = rank_backbones(tmp_path, results, "max")
    assert [(row.name, row.lost) for row in rows] == [
        *(("slow", False), ("small", False), ("gone", False), ("large", True)),
    ]
    (line,) = [line for line in format_bakeoff(rows, "f1") if line.startswith("  large")]
    assert line.split()[1] == "0.9000"
    assert "trial 004 has lost its probe.json, fine-tuned 0.9400" in line
    assert "failed" not in line
    write_bakeoff(tmp_path, rows)
    with (tmp_path / "bakeoff.csv").open(newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["backbone"] == "large"]
    assert (row["status"], float(row["probe"]), row["low"]) == ("completed", pytest.approx(0.9), "")


def test_differences_are_of_the_same_folds_and_hold_together(tmp_path, results):
    best, slow, small, _ = rank_backbones(tmp_path, results, "max")
    assert best.difference is None
    gaps = np.array(FOLDS["small"]) - np.array(FOLDS["large"])
    expected = estimate_fold_mean(gaps, left_out=0.25, confidence=0.975)
    assert small.difference == pytest.approx((expected.value, expected.low, expected.high))
    assert slow.difference[0] > small.difference[0]


def test_names_say_in_what_backbones_differ(tmp_path, results):
    write_probe(tmp_path / "trials" / "trial-001", probe_of("small", size=96, weights="random"))
    names = [row.name for row in rank_backbones(tmp_path, results, "max")]
    assert names[:3] == ["large (imagenet, 160)", "slow (imagenet, 160)", "small (random, 96)"]


def test_the_table_has_a_line_a_backbone(tmp_path, results):
    write_bakeoff(tmp_path, rank_backbones(tmp_path, results, "max"))
    with (tmp_path / "bakeoff.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["backbone"] for row in rows] == ["large", "slow", "small", "gone"]
    assert rows[0]["fine_tuned"] == repr((0.95 + 0.93) / 2)
    assert (rows[0]["front"], rows[1]["front"], rows[0]["trainings"]) == ("1", "0", "2")
    assert (rows[3]["status"], rows[3]["error"], rows[3]["probe"]) == ("failed", "weights: not to be had", "")
    assert all(None not in row and None not in row.values() for row in rows)


def test_the_screen_shows_metric_cost_front_and_failure(tmp_path, results):
    lines = list(format_bakeoff(rank_backbones(tmp_path, results, "max"), "f1"))
    assert "mean of 5 folds" in lines[0]
    assert lines[2].split()[:2] == ["large", "0.9000"]
    assert lines[1].split()[:3] == ["backbone", "F1", "interval"]
    assert "  50.0           12.5  " in lines[2]
    assert "fine-tuned 0.9400 (2 seeds)" in lines[2]
    assert "fine-tuning failed: resource: out of memory" in lines[3]
    assert "front" in lines[4]
    assert lines[5].split(maxsplit=1) == ["gone", "failed: trial 002"]


RECIPE = "data: {source: images, image_size: 64}\nmodel: {backbone: BACKBONE}\n"
CHOICE = "{search: choice, values: [efficientnet_lite0, resnet50]}"


def loaded(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path)


def test_backbones_and_image_sizes_may_vary(tmp_path):
    text = RECIPE.replace("BACKBONE", CHOICE).replace("64", "{search: int, low: 64, high: 96, step: 32}")
    check_bakeoff(loaded(tmp_path, text))


def test_whole_models_may_vary(tmp_path):
    model = "model: {search: choice, values: [{backbone: resnet50}, {backbone: vgg16, weights: hed}]}"
    check_bakeoff(loaded(tmp_path, f"data: {{source: images, image_size: 64}}\n{model}\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RECIPE.replace("64", "{search: choice, values: [64, 96]}").replace("BACKBONE", "vgg16"), "needs backbones"),
        (
            RECIPE.replace("BACKBONE", CHOICE) + "train: {batch_size: {search: choice, values: [8, 16]}}\n",
            "being equal",
        ),
        (RECIPE.replace("BACKBONE", CHOICE + ", head: {dropout: {search: uniform, low: 0, high: 0.5}}"), "being equal"),
    ],
)
def test_other_spaces_are_refused(tmp_path, text, said):
    with pytest.raises(RecipeError, match=said):
        check_bakeoff(loaded(tmp_path, text))

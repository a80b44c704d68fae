"""Run folders of searches for tests, with a synthetic objective in place of trainings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from imagetune.core.files import append_json_line, write_json
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import format_recipe
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, UniformSpace
from imagetune.search.proposers.finalists import list_repeats, rank_candidates
from imagetune.search.records.journal import Ended, Proposed
from imagetune.search.records.table import describe_search, open_records, write_table
from imagetune.search.records.trial import Trial, TrialResult

RATE = ("train", "stages", 0, "learning_rate")
TOP_RATE = ("train", "stages", 1, "learning_rate")
DEPTH = ("train", "stages", 1, "unfreeze")
DECAY = ("train", "stages", 1, "layer_decay")
BATCH = ("train", "batch_size")
AUGMENTATION = ("data", "augmentation")
DROPOUT = ("model", "head", "dropout")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-4, high=1e-1),
    DEPTH: ChoiceSpace(search="choice", values=("none", "last 2 blocks", "all")),
    DECAY: UniformSpace(search="uniform", low=0.5, high=1.0),
    BATCH: IntSpace(search="int", low=8, high=64, step=8),
    AUGMENTATION: ChoiceSpace(search="choice", values=("none", "light", "medium", "strong")),
    DROPOUT: UniformSpace(search="uniform", low=0.0, high=0.6),
}
RECIPE = """\
name: colours
data: {source: images, image_size: 32}
train:
  batch_size: 16
  stages:
    - {name: head, unfreeze: none, epochs: 4, learning_rate: 1e-2}
    - {name: top, unfreeze: last 1 blocks, epochs: 4, learning_rate: 1e-3}
search: {SEARCH}
"""
EPOCHS = 8
_BEGAN = 1_800_000_000.0


def surface(values):
    """Return a synthetic objective, best at a learning rate of 3e-3 and the middle depth.

    Layer decay matters where something is unfrozen, the batch size never.
    """
    metric = 0.9 - 0.08 * (math.log10(values[RATE]) + 2.5) ** 2
    metric -= {"none": 0.12, "last 2 blocks": 0.0, "all": 0.04}[values[DEPTH]] if DEPTH in values else 0
    metric -= 0.2 * (values[DECAY] - 0.8) ** 2 if DECAY in values else 0
    return metric


def drawn(spaces, rng):
    """Return a random value of each space, of layer decay only where something is unfrozen."""
    values = {}
    for path, space in spaces.items():
        if isinstance(space, ChoiceSpace):
            values[path] = space.values[rng.integers(len(space.values))]
        elif isinstance(space, IntSpace):
            values[path] = int(rng.integers(space.low, space.high + 1)) // space.step * space.step
        elif isinstance(space, LogUniformSpace):
            values[path] = float(space.low * (space.high / space.low) ** rng.random())
        else:
            values[path] = float(space.low + rng.random() * (space.high - space.low))
    if values.get(DEPTH) == "none":
        values.pop(DECAY, None)
    return values


def write_search(
    folder: Path,
    *,
    trials: int = 12,
    spaces=SPACES,
    metric: Callable[..., float] = surface,
    search: str = "algorithm: random, objective: f1, trials: 12",
    failing: Callable[[int], str] = lambda number: "",
    noise: float = 0.005,
    slots: int = 2,
    finalists: int = 3,
    unended: int = 0,
    state: str = "finished",
    seed: int = 0,
    rungs: tuple[int, ...] = (),
    values_of=drawn,
) -> Path:
    """Write the run folder of a search, and return it.

    Args:
        folder: The folder to create.
        trials: How many trials the search proposed.
        spaces: Search spaces by recipe path.
        metric: Returns the objective of a setting, before noise.
        search: The recipe's ``search`` section, without its braces.
        failing: Returns the error of the trial with a number, empty where it doesn't fail.
        noise: Standard deviation of the objective over seeds.
        slots: How many trials run at a time.
        finalists: How many of the best are repeated twice; 0 for none.
        unended: How many of the last trials were proposed and haven't ended.
        state: State of the search in status.json.
        seed: Seed of all random values.
        rungs: Hyperband: epochs of the rungs; a third of each is promoted.
        values_of: Draws the values of a trial.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    (folder / "given.yaml").write_text(RECIPE.replace("{SEARCH}", "{" + search + "}"), encoding="utf-8")
    recipe = load_recipe(folder / "given.yaml").recipe
    (folder / "given.yaml").rename(folder / "recipe.yaml")
    (folder / "recipe.yaml").write_text(format_recipe(recipe), encoding="utf-8")
    write_json(folder / "status.json", {"state": state, "stage": "", "epoch": 0, "error": None, "pid": 1})
    journal, table = open_records(folder, describe_search(recipe.search, spaces, seed=0), list(spaces))
    free, results = [_BEGAN] * slots, []

    def run(trial: Trial, error: str = "") -> TrialResult:
        journal.add(Proposed(trial))
        slot = free.index(min(free))
        seconds = float(rng.uniform(20, 60)) * (trial.epochs or EPOCHS) / EPOCHS
        value = metric(trial.values) + noise * float(rng.normal()) - 0.1 / (trial.epochs or EPOCHS)
        epochs, status = trial.epochs or EPOCHS, "completed"
        if not rungs and trial.phase == "search" and value < 0.6:
            epochs, status, value = 4, "stopped", value - 0.02
        result = TrialResult(
            trial, status, value, free[slot], seconds, epochs, epochs, f"gpu {slot}" if slots > 1 else "host"
        )
        if error:
            result = replace(result, status="failed", objective=None, error=error, epochs=1, seconds=5.0)
        _write_trial(folder / "trials" / f"trial-{trial.trial_id}", result, rng)
        free[slot] += result.seconds
        journal.add(Ended(result))
        results.append(result)
        return result

    if rungs:
        _hyperband(run, [values_of(spaces, rng) for _ in range(trials)], rungs)
    else:
        for number in range(1, trials + 1 - unended):
            run(Trial(f"{number:03d}", values_of(spaces, rng)), failing(number))
    for number in range(trials + 1 - unended, trials + 1):
        journal.add(Proposed(Trial(f"{number:03d}", values_of(spaces, rng))))
    candidates = rank_candidates(results, "min" if "objective: loss" in search else "max")
    if finalists and candidates and not unended:
        for trial in list_repeats(candidates[:finalists], repeats=3, seed=0):
            run(trial)
    write_table(table, results)
    if candidates and state == "finished":
        _write_best(folder)
    return folder


def _hyperband(run, drawn_values, rungs):
    open_trials, number = [(None, values) for values in drawn_values], 0
    for epochs in rungs:
        ended = []
        for continues, values in open_trials:
            number += 1
            ended.append(run(Trial(f"{number:03d}", values, epochs=epochs, continues=continues)))
        ended.sort(key=lambda result: -result.objective)
        open_trials = [(one.trial.trial_id, one.trial.values) for one in ended[: max(1, len(ended) // 3)]]


def _write_trial(folder, result, rng):
    folder.mkdir(parents=True)
    append_json_line(folder / "status.json", {"state": "failed" if result.error else "finished"})
    first = 0
    for epoch in range(first + 1, first + result.epochs + 1):
        value = (result.objective or 0.3) * (1 - 0.5 * math.exp(-epoch / 2)) + 0.003 * float(rng.normal())
        metrics = {"loss": 1.5 - value, "f1": value, "accuracy": value}
        stage = "head" if epoch <= EPOCHS // 2 else "top"
        line = {"stage": stage, "epoch": epoch, "step": 10 * epoch, "train": metrics, "val": metrics}
        append_json_line(folder / "metrics.jsonl", line | {"learning_rate": 1e-3, "images_per_second": 100.0})


def _write_best(folder):
    (folder / "best.yaml").write_text((folder / "recipe.yaml").read_text(), encoding="utf-8")
    best = folder / "best"
    best.mkdir()
    (best / "report.html").write_text("<p>The winner's page.", encoding="utf-8")
    write_json(best / "status.json", {"state": "finished"})
    tested = {
        "f1": {"value": 0.861, "low": 0.79, "high": 0.91},
        "accuracy": {"value": 0.87, "low": 0.8, "high": 0.92},
        "log_loss": {"value": 0.41, "low": 0.3, "high": 0.5},
    }
    document = {"format_version": 1, "task": "single_label", "splits": {"test": {"images": 120, "metrics": tested}}}
    (best / "evaluation.json").write_text(json.dumps(document), encoding="utf-8")

"""Recording of a surface for oracles.py: the validation metrics of a grid of real trainings, as a table.

    python -m benchmarks.record_surface [--out benchmarks/surfaces/linear_probe.csv] [--seed 0] [--epochs 10]

Each training is a linear probe of EfficientNet-Lite0 on the shipped drawings at 96 pixels, on cached features, by
imagetune's own training, one after the other in this process. 40% of the images validate. What is there already isn't
trained again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.surface import COLUMNS, FACTORS, METRICS, Setting
from imagetune.core.files import read_json_lines
from imagetune.core.messages import say_nothing
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import create_run_folder
from imagetune.run_folder.recorder import RunRecorder
from imagetune.runs.prepare import Data, build_pretrained, build_training_job, read_data, resolve_workers
from imagetune.training.loop.fit import train
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.stopping import StopRequest

Weights = NDArray[np.float32]

_IMAGES = Path(__file__).parents[1] / "recipes" / "clipart"
_SIZE = 96
_VAL = 0.4


def main(arguments: Sequence[str] | None = None) -> int:
    """Record what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "surfaces" / "linear_probe.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--most", type=int, default=None, help="trainings in this session")
    options = parser.parse_args(arguments)
    waiting = [setting for setting in _settings() if setting not in set(_recorded(options.out))][: options.most]
    data: Data | None = None
    models: dict[float, tuple[keras.Model, list[Weights]]] = {}
    for number, setting in enumerate(waiting, start=1):
        recipe = _recipe(setting, seed=options.seed, epochs=options.epochs)
        data = data or read_data(recipe, say=print)
        began = time.monotonic()
        metrics = _trained(recipe, data, models)
        _append(options.out, (*setting, *metrics, round(time.monotonic() - began, 2)))
        print(f"{number:4} of {len(waiting)}  {setting}  {metrics}  {time.monotonic() - began:.1f} s", flush=True)
    return 0


def _settings() -> Iterator[Setting]:
    return itertools.product(*FACTORS.values())


def _recorded(path: Path) -> list[Setting]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [tuple(type(levels[0])(row[name]) for name, levels in FACTORS.items()) for row in rows]


def _append(path: Path, row: Sequence[object]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow((*COLUMNS, "seconds"))
        writer.writerow(row)


def _recipe(setting: Setting, *, seed: int, epochs: int) -> Recipe:
    values = dict(zip(FACTORS, setting, strict=True))
    stage = {"name": "head", "unfreeze": "none", "epochs": epochs, "learning_rate": values["learning_rate"]}
    data = {"source": str(_IMAGES), "image_size": _SIZE, "augmentation": "none", "workers": 0}
    return Recipe.model_validate(
        {
            "name": "surface",
            "seed": seed,
            "data": {**data, "split": {"val": _VAL, "test": 0.0}},
            "model": {"head": {"dropout": values["dropout"]}},
            "train": {
                "stages": [stage],
                "batch_size": values["batch_size"],
                "optimizer": values["optimizer"],
                "label_smoothing": values["label_smoothing"],
            },
            "tracking": {"enabled": False},
        }
    )


def _trained(recipe: Recipe, data: Data, models: dict[float, tuple[keras.Model, list[Weights]]]) -> tuple[float, ...]:
    """Return the best of each validation metric over the epochs, as a trial's objective is.

    A model of the same head is taken again, with the weights that it had at first: building one takes longer than
    training its head.
    """
    model = _model(recipe, data, models)
    keras.utils.set_random_seed(recipe.seed)
    work = Path(tempfile.mkdtemp(prefix="surface-"))
    try:
        folder = create_run_folder(recipe, work / "run")
        recorder = RunRecorder(folder, SilentListener(), lambda _: None)
        recipe = resolve_workers(recipe, data.images(recipe), model, say=say_nothing)
        job = build_training_job(recipe, data.images(recipe), model, stop=StopRequest())
        train(replace(job, folder=folder.checkpoints, listener=recorder))
        lines = [line["val"] for line in read_json_lines(folder.metrics)]
    finally:
        shutil.rmtree(work)
    return tuple(
        round((min if metric == "loss" else max)(float(line[metric]) for line in lines), 6) for metric in METRICS
    )


def _model(recipe: Recipe, data: Data, models: dict[float, tuple[keras.Model, list[Weights]]]) -> keras.Model:
    dropout = recipe.model.head.dropout
    if dropout not in models:
        keras.utils.set_random_seed(recipe.seed)
        built, _ = build_pretrained(recipe, data.images(recipe), say=say_nothing)
        models[dropout] = built, built.get_weights()
    model, weights = models[dropout]
    model.set_weights(weights)
    return model


if __name__ == "__main__":
    raise SystemExit(main())

"""Images a second of training by imagetune and by a bare `model.fit`, on the same model; for step.py and gpu.py.

The time is that of a whole epoch. The first epoch compiles, decodes and fills caches, and doesn't count.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from benchmarks.sets import write_jpegs
from imagetune.core.messages import say_nothing
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_logits_model
from imagetune.model.devices import find_device
from imagetune.model.trainable import set_trainable
from imagetune.recipe.schema import Recipe
from imagetune.run_folder.folder import create_run_folder
from imagetune.run_folder.recorder import RunRecorder
from imagetune.runs.prepare import Data, build_pretrained, build_training_job, resolve_workers
from imagetune.training.loop.fit import train
from imagetune.training.setup.events import EpochRecord, Listener, SilentListener
from imagetune.training.setup.stopping import StopRequest

CLASSES = 10
LEARNING_RATE = 1e-4


def write_images(folder: Path, count: int) -> Path:
    """Write the JPEGs of 640 x 480 that all sides train on, and return their folder."""
    write_jpegs(folder, classes=CLASSES, count=count)
    return folder


def build_recipe(
    source: Path,
    *,
    backbone: str,
    size: int,
    batch: int,
    epochs: int,
    augmentation: str,
    precision: str = "float32",
    cache: str = "auto",
) -> Recipe:
    """Return a recipe that trains everything from the first epoch on, on all images of a folder.

    Args:
        source: Class folders.
        backbone: Its weights are random: they cost the same time.
        size: Side of the model's input in pixels.
        batch: Images a step.
        epochs: At least 2.
        augmentation: A preset.
        precision: As in a recipe.
        cache: As ``data.cache`` in a recipe.
    """
    data = {
        "source": str(source),
        "image_size": size,
        "augmentation": augmentation,
        "cache": cache,
        "split": {"val": 0.0, "test": 0.0},
        # Near-duplicate groups matter to splits only, and there are none.
        "audit": {"near_duplicates": False},
    }
    stage = {"name": "all", "unfreeze": "all", "epochs": epochs, "learning_rate": LEARNING_RATE}
    return Recipe.model_validate(
        {
            "name": "rates",
            "data": data,
            "model": {"backbone": backbone, "weights": "random"},
            "train": {"stages": [stage], "batch_size": batch, "precision": precision},
            "tracking": {"enabled": False},
        }
    )


def measure_imagetune(recipe: Recipe, data: Data, work: Path, listener: Listener | None = None) -> float:
    """Return the images a second of imagetune's training: its pipeline, its callback, its files.

    Args:
        recipe: From `build_recipe`.
        data: Its images, read once for all measurements.
        work: The folder for the run folder, which is deleted afterwards.
        listener: Receives the progress.
    """
    records: list[EpochRecord] = []
    model, _ = build_pretrained(recipe, data.images(recipe), say=say_nothing)
    recipe = resolve_workers(recipe, data.images(recipe), model, say=say_nothing)
    folder = create_run_folder(recipe, work / "run")
    try:
        recorder = RunRecorder(folder, listener or SilentListener(), records.append)
        job = build_training_job(recipe, data.images(recipe), model, stop=StopRequest())
        train(replace(job, folder=folder.checkpoints, listener=recorder))
    finally:
        shutil.rmtree(folder.path)
    return statistics.median(record.images_per_second for record in records[1:])


def measure_bare_fit(recipe: Recipe, data: Data, *, one_batch: bool = False) -> float:
    """Return the images a second of a bare `fit` of the same model with the same optimizer and compilation.

    Args:
        recipe: From `build_recipe`.
        data: Its images, whose number counts; their pixels are random.
        one_batch: Take one batch that is on the device already again and again, instead of shuffling all images in
            memory.
    """
    training_data = data.images(recipe)
    learner = _bare_learner(recipe, data)
    image, batch, count = recipe.data.image, recipe.train.pass_size, len(training_data.train)
    random = np.random.default_rng(0)
    held = batch if one_batch else count
    pixels = random.integers(0, 256, (held, image.height, image.width, 3), np.uint8)
    labels = random.integers(0, CLASSES, held)
    clock = _Clock()
    shared = {"epochs": recipe.train.stages[0].epochs, "callbacks": [clock], "verbose": 0}
    if one_batch:
        steps = count // batch
        learner.fit(_same_again(pixels, labels), steps_per_epoch=steps, shuffle=False, **shared)
        return steps * batch / statistics.median(clock.seconds[1:])
    tensors = keras.ops.convert_to_tensor(pixels), keras.ops.convert_to_tensor(labels)
    learner.fit(*tensors, batch_size=batch, **shared)
    return count / statistics.median(clock.seconds[1:])


class _Clock(keras.callbacks.Callback):
    """Notes the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start."""
        del epoch, logs
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop; asking for the loss waits for a device that is still computing."""
        del epoch
        float((logs or {})["loss"])
        self.seconds.append(time.perf_counter() - self._began)


def _bare_learner(recipe: Recipe, data: Data) -> keras.Model:
    model, _ = build_pretrained(recipe, data.images(recipe), say=say_nothing)
    set_trainable(model, get_backbone(recipe.model.backbone), "all", batch_norm="frozen")
    learner = build_logits_model(model)
    learner.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=recipe.train.optimizer.weight_decay),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # As imagetune decides: on the CPU XLA would make the bare side slower.
        jit_compile=False if find_device().is_tensorflow_cpu else "auto",
    )
    return learner


def _same_again(images: NDArray[np.uint8], labels: NDArray[Any]) -> Iterator[tuple[Any, Any]]:
    batch = keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(labels)
    while True:
        yield batch

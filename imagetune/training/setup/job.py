"""The training job: model, images and settings of a training, and the batches and targets made from them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from imagetune.data.loading.image_cache import ImageCaches
from imagetune.data.loading.pipeline import Batches, compute_steps_per_epoch, load_training_batches
from imagetune.data.loading.targets import encode_targets
from imagetune.data.sources.records import Record
from imagetune.model.backbones.table import Backbone
from imagetune.model.build import find_backbone, find_value_scale
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.training.objectives.class_weights import class_weights, compute_sampling_weights, count_classes
from imagetune.training.objectives.distillation import Teacher
from imagetune.training.objectives.penalties import copy_pretrained_weights
from imagetune.training.setup.events import Listener
from imagetune.training.setup.keras_feed import TrainingTargets
from imagetune.training.setup.stages import Objective
from imagetune.training.setup.stopping import StopRequest

CLASS_TASKS = ("single_label", "ordinal")


@dataclass(frozen=True)
class TrainingImages:
    """The training and validation images; test images have no place here, so that none reaches model selection.

    Attributes:
        train: Training records.
        val: Validation records; may be empty.
        class_names: Names of the classes, by index.
        config: How images are read and augmented, and what a label is.
        hashes: SHA-256 of each image by path, as far as known; caches identify images by it.
        caches: Caches of decoded images.
        duplicate_groups: Near-duplicate group of each image that has one, by path.
    """

    train: Sequence[Record]
    val: Sequence[Record]
    class_names: tuple[str, ...]
    config: DataConfig
    hashes: Mapping[str, str] = field(default_factory=dict)
    caches: ImageCaches = field(default_factory=lambda: ImageCaches({}))
    duplicate_groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def train_labels(self) -> list[str]:
        """Label of each training record, in their order."""
        return [record.label for record in self.train]


@dataclass(frozen=True)
class TrainingJob:
    """A training job: what all stages need, unchanged during training; `TrainingState` holds the progress.

    Attributes:
        model: Model from raw RGB images (batch, height, width, 3) to probabilities (batch, k); trained in place.
        backbone: Its row in the table of backbones.
        config: Stages, optimizer and early stopping.
        images: Training and validation records.
        folder: Folder of the checkpoints.
        seed: Random seed of order, augmentation and mixing.
        listener: Receives the events of progress.
        stop: Request to stop, checked after every step.
        rebuild: Builds the same model with random weights for another (height, width), for stages with an image size
            of their own.
        teacher: Model whose predictions are learned from too, or None.
    """

    model: keras.Model
    backbone: Backbone
    config: TrainConfig
    images: TrainingImages
    folder: Path
    seed: int
    listener: Listener
    stop: StopRequest
    rebuild: Callable[[tuple[int, int]], keras.Model] | None = None
    teacher: Teacher | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of passes in an epoch: optimizer steps where gradients aren't accumulated."""
        return compute_steps_per_epoch(len(self.images.train), self.config.pass_size)


def build_objective(job: TrainingJob) -> Objective:
    """Return the training objective; the backbone must still have its pretrained weights, which L2-SP copies."""
    task, images = job.images.config.task, job.images
    priors = None
    if task in CLASS_TASKS:
        counts = count_classes(images.train_labels, images.class_names)
        priors = counts / counts.sum()
    anchors = copy_pretrained_weights(find_backbone(job.model), job.config.regularisation)
    return Objective(task, priors, anchors, find_value_scale(job.model))


def build_targets(job: TrainingJob) -> TrainingTargets:
    """Return the targets and loss weights of the training images, with mixing and teacher.

    Raises:
        DataError: There is a weight for a class that doesn't exist.
    """
    images, labels = job.images, job.images.train_labels
    data = images.config
    targets = encode_targets(labels, images.class_names, data.task, separator=data.label_separator)
    if (scale := find_value_scale(job.model)) is not None:
        # Numbers are normalised: the loss of large ones would need another learning rate.
        targets = (targets - np.float32(scale.mean)) / np.float32(scale.std)
    weights = None
    if job.config.class_weights != "none":
        counts = count_classes(labels, images.class_names)
        of_classes = class_weights(job.config.class_weights, counts, images.class_names)
        weights = None if of_classes is None else of_classes[targets.argmax(axis=1)]
    return TrainingTargets(targets, weights, job.config.mix, job.teacher, job.seed)


def open_stage_batches(
    job: TrainingJob,
    stage: StageConfig,
    *,
    epochs: int,
    start_step: int = 0,
    augmentation: str | None = None,
    workers: int | None = None,
    natural: bool = False,
) -> Batches:
    """Open the shuffled, augmented batches of a stage, to be closed, for instance by a ``with`` block.

    Args:
        job: The training job.
        stage: The stage, which may have its own image size and augmentation.
        epochs: Number of passes over the images, counted from the beginning of training.
        start_step: First step, counted from the beginning of training.
        augmentation: Augmentation in the place of the stage's.
        workers: Number of loading processes in the place of the recipe's.
        natural: Whether every image comes once an epoch, whatever ``train.sampling`` says.
    """
    data = resolve_stage_data(job.images.config, stage)
    # One more: validation or the final predictions read the images again.
    cache = job.images.caches.open_cache(data, reads=epochs + 1)
    return load_training_batches(
        job.images.train,
        job.images.class_names,
        image=data.image,
        augmentation=data.augmentation if augmentation is None else augmentation,
        batch_size=job.config.pass_size,
        seed=job.seed,
        epochs=epochs,
        workers=data.workers if workers is None else workers,
        max_pixels=data.max_pixels,
        start_step=start_step,
        chances=None if natural else compute_draw_probabilities(job),
        cache=cache,
    )


def build_stage_model(job: TrainingJob, stage: StageConfig) -> keras.Model:
    """Return the model that a stage trains: the job's own, or a copy for the stage's image size.

    Raises:
        ValueError: The job can't rebuild the model for another image size.
    """
    image = resolve_stage_data(job.images.config, stage).image
    size = (image.height, image.width)
    if size == tuple(job.model.input_shape[1:3]):
        return job.model
    if job.rebuild is None:
        raise ValueError("a stage with an image size of its own needs `rebuild`")
    # The copy's dropout follows from the stage, not from earlier random draws: another process can resume here.
    keras.utils.set_random_seed(zlib.crc32(f"{job.seed} {stage.name}".encode()))
    copy = job.rebuild(size)
    copy.set_weights(job.model.get_weights())
    return copy


def resolve_stage_data(data: DataConfig, stage: StageConfig) -> DataConfig:
    """Return the ``data`` section of a stage: with the stage's own image size and augmentation, if it has any."""
    own = {"image_size": stage.image_size, "augmentation": stage.augmentation}
    return data.model_copy(update={key: value for key, value in own.items() if value is not None})


def is_augmented(data: DataConfig) -> bool:
    """Return whether training images are augmented."""
    return data.augmentation not in ("none", ())


def compute_draw_probabilities(job: TrainingJob) -> np.ndarray | None:
    """Return the sampling probability of each training image, (n,) float64; None where each comes once an epoch."""
    if job.config.sampling == "natural":
        return None
    return compute_sampling_weights(job.config.sampling, job.images.train_labels, job.images.class_names)

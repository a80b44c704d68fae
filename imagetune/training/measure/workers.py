"""Number of loading processes (``data.workers: auto``), chosen by a short measurement.

Threads share one interpreter, which limits them; processes don't, but take seconds to start. Both are weighed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imagetune.core.processes import count_usable_cores
from imagetune.data.loading.timing import Augmentation, measure_thread_throughput, sample_evenly
from imagetune.data.sources.records import Record
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.feature_cache.plan import read_feature_settings
from imagetune.training.measure.forecast import CACHED_SHARE, PROCESS_SHARE
from imagetune.training.setup.job import is_augmented, resolve_stage_data

MEASURED_IMAGES = 12
# Disturbances only make a measurement slower, so the fastest of several is the most accurate.
ROUNDS = 2
MAX_THREADS, MAX_WORKERS = 8, 32
# Time on one core to start a process: the interpreter and the libraries that decode and augment.
START_SECONDS = 2.0


@dataclass(frozen=True)
class LoadingSpeeds:
    """Measured speeds of loading and augmenting, in images per second.

    Attributes:
        core: Speed of one thread.
        threads: Speed of all threads of one process.
        cores: Number of cores that this process may use.
        kept_share: Share of an image's loading time that is left once it is kept decoded.
    """

    core: float
    threads: float
    cores: int
    kept_share: float = 1.0

    @property
    def workers(self) -> int:
        """Number of processes for which there are cores."""
        return min(self.cores, MAX_WORKERS)

    @property
    def processes(self) -> float:
        """Speed that so many processes would have, in images per second."""
        return self.workers * PROCESS_SHARE * self.core


@dataclass(frozen=True)
class Reads:
    """Number of image reads in a training.

    Attributes:
        fresh: Number of reads that decode the image.
        kept: Number of reads of images that are kept decoded.
        starts: Number of times that processes would be started.
    """

    fresh: int
    kept: int = 0
    starts: int = 1


@dataclass(frozen=True)
class WorkerChoice:
    """Number of loading processes, and a clause with the reason."""

    workers: int
    reason: str


def measure_loading_speeds(records: Sequence[Record], data: DataConfig, augmentation: Augmentation) -> LoadingSpeeds:
    """Return the speeds of loading images, measured on a few of them with one thread and with several.

    Raises:
        BadImageError: An image vanished.
    """
    cores = count_usable_cores()
    sample = sample_evenly(records, MEASURED_IMAGES)

    def fastest(threads: int, kind: Augmentation) -> float:
        return max(
            measure_thread_throughput(sample, data.image, kind, max_pixels=data.max_pixels, threads=threads)
            for _ in range(ROUNDS)
        )

    core = fastest(1, augmentation)
    threads = fastest(min(cores, MAX_THREADS), augmentation) if cores > 1 else core
    share = 1.0 if data.cache == "off" else max(1 - core / fastest(1, "none"), CACHED_SHARE)
    return LoadingSpeeds(core, threads, cores, share)


def choose_workers(speeds: LoadingSpeeds, reads: Reads, *, shared: bool, step: Callable[[], float]) -> WorkerChoice:
    """Return the number of processes to start, and why.

    Processes pay only where threads can't keep up with the model and the training is long enough for their start.

    Args:
        speeds: Measured speeds of loading.
        reads: Number of reads in the whole training.
        shared: Whether the model runs on the same cores as the loading.
        step: Measures the model's seconds per image; called only where the choice depends on it.
    """
    said = f"threads load {speeds.threads:.0f} images/s here"
    if speeds.cores == 1:
        return WorkerChoice(0, "there is one core")
    if speeds.processes <= speeds.threads:
        return WorkerChoice(0, f"{said}, processes would load no more")
    cost = reads.starts * START_SECONDS * (speeds.workers / speeds.cores if shared else 1.0)
    # The most that could be saved, with an infinitely fast model: often that decides without measuring.
    if _compute_saved_seconds(speeds, reads, shared=shared, step=0.0) < cost:
        return WorkerChoice(0, f"{said}, the start of processes would not pay")
    seconds = step()
    saved = _compute_saved_seconds(speeds, reads, shared=shared, step=seconds)
    if saved < cost:
        return WorkerChoice(0, f"{said}, the model takes {1 / seconds:.0f}")
    # On shared cores every worker helps until all cores are busy; a device needs no more than its own speed.
    needed = speeds.workers if shared else math.ceil(1 / (seconds * PROCESS_SHARE * speeds.core))
    workers = max(1, min(speeds.workers, needed))
    return WorkerChoice(workers, f"{said}, the model could take {1 / seconds:.0f}; about {saved:.0f} s saved")


def count_reads(train: TrainConfig, data: DataConfig, count: int) -> Reads:
    """Return the number of image reads in a training; stages with cached features read each copy once.

    Args:
        train: Stages and feature cache.
        data: Image size, and whether images are kept decoded.
        count: Number of training images.
    """
    passes = 0
    for stage in train.stages:
        settings, augmented = read_feature_settings(train, stage), is_augmented(resolve_stage_data(data, stage))
        cached = settings.caches_backbone
        passes += settings.count_copies(stage.epochs, augmented=augmented) if cached else stage.epochs
    # Decoded images are kept by size: the first pass at each decodes them.
    sizes = len({resolve_stage_data(data, stage).image for stage in train.stages})
    fresh = passes if data.cache == "off" else min(sizes, passes)
    return Reads(fresh * count, (passes - fresh) * count, len(train.stages))


def _compute_saved_seconds(speeds: LoadingSpeeds, reads: Reads, *, shared: bool, step: float) -> float:
    """Return the seconds that processes would save over the training, without their start."""
    saved = 0.0
    for count, share in ((reads.fresh, 1.0), (reads.kept, speeds.kept_share)):
        together = step + (share / (speeds.core * speeds.cores) if shared else 0.0)
        saved += count * (max(share / speeds.threads, together) - max(share / speeds.processes, together))
    return saved

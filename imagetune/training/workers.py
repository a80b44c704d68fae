"""How many processes load pictures, chosen by a short measurement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imagetune.core.processes import usable_cores
from imagetune.data.sources.records import Record
from imagetune.data.timing import Augmentation, spread_sample, thread_rate
from imagetune.recipe.data import DataConfig
from imagetune.recipe.train import TrainConfig
from imagetune.recipe.unfreeze import parse_unfreeze
from imagetune.training.feature_plan import cache_setting, views_of
from imagetune.training.forecast import CACHED_SHARE, PROCESS_SHARE
from imagetune.training.job import augments, stage_data

MEASURED_PICTURES = 12
# What disturbs a measurement makes it slower, so the fastest of a few is the nearest.
ROUNDS = 2
MOST_THREADS, MOST_WORKERS = 8, 32
# Of a core: the interpreter and the libraries that decode and augment.
START_SECONDS = 2.0


@dataclass(frozen=True)
class LoadingRates:
    """What loading and augmenting was measured at, in pictures a second.

    Attributes:
        core: One thread.
        threads: All threads of one process.
        cores: That this process may use.
        kept_share: Share of a picture's loading that is left once it is kept decoded.
    """

    core: float
    threads: float
    cores: int
    kept_share: float = 1.0

    @property
    def workers(self) -> int:
        """Processes that the cores have room for."""
        return min(self.cores, MOST_WORKERS)

    @property
    def processes(self) -> float:
        """What so many processes would load."""
        return self.workers * PROCESS_SHARE * self.core


@dataclass(frozen=True)
class Reads:
    """How often a training loads pictures.

    Attributes:
        fresh: Pictures that must be decoded.
        kept: Pictures that are decoded already.
        starts: How often processes would be started.
    """

    fresh: int
    kept: int = 0
    starts: int = 1


@dataclass(frozen=True)
class WorkerChoice:
    """How many processes load pictures, and a clause that says why."""

    workers: int
    reason: str


def measure_rates(records: Sequence[Record], data: DataConfig, augmentation: Augmentation) -> LoadingRates:
    """Load a few pictures with one thread and with several.

    Raises:
        BadPictureError: A picture vanished.
    """
    cores = usable_cores()
    sample = spread_sample(records, MEASURED_PICTURES)

    def fastest(threads: int, kind: Augmentation) -> float:
        return max(
            thread_rate(sample, data.image, kind, max_pixels=data.max_pixels, threads=threads) for _ in range(ROUNDS)
        )

    core = fastest(1, augmentation)
    threads = fastest(min(cores, MOST_THREADS), augmentation) if cores > 1 else core
    share = 1.0 if data.cache == "off" else max(1 - core / fastest(1, "none"), CACHED_SHARE)
    return LoadingRates(core, threads, cores, share)


def choose_workers(rates: LoadingRates, reads: Reads, *, shared: bool, step: Callable[[], float]) -> WorkerChoice:
    """Decide: processes only where threads can't feed the step and the training is long enough to pay their start.

    Args:
        rates: As measured.
        reads: What the whole training loads.
        shared: Whether the model runs on the cores that load, too.
        step: Measures the seconds a picture that the model takes; called only where the answer depends on it.
    """
    said = f"threads load {rates.threads:.0f} pictures/s here"
    if rates.cores == 1:
        return WorkerChoice(0, "there is one core")
    if rates.processes <= rates.threads:
        return WorkerChoice(0, f"{said}, processes would load no more")
    cost = reads.starts * START_SECONDS * (rates.workers / rates.cores if shared else 1.0)
    if _saved_seconds(rates, reads, shared=shared, step=0.0) < cost:
        return WorkerChoice(0, f"{said}, the start of processes would not pay")
    seconds = step()
    saved = _saved_seconds(rates, reads, shared=shared, step=seconds)
    if saved < cost:
        return WorkerChoice(0, f"{said}, the model takes {1 / seconds:.0f}")
    needed = rates.workers if shared else math.ceil(1 / (seconds * PROCESS_SHARE * rates.core))
    workers = max(1, min(rates.workers, needed))
    return WorkerChoice(workers, f"{said}, the model could take {1 / seconds:.0f}; about {saved:.0f} s saved")


def training_reads(train: TrainConfig, data: DataConfig, count: int) -> Reads:
    """Return how often a training loads pictures; stages that keep features do so only as often as they need.

    Args:
        train: Its stages.
        data: Whether pictures are kept decoded.
        count: Training pictures.
    """
    passes = 0
    for stage in train.stages:
        cached = parse_unfreeze(stage.unfreeze).nothing and cache_setting(train, stage) != "off"
        passes += views_of(train, stage, augmented=augments(data, stage)) if cached else stage.epochs
    sizes = len({stage_data(data, stage).image for stage in train.stages})
    fresh = passes if data.cache == "off" else min(sizes, passes)
    return Reads(fresh * count, (passes - fresh) * count, len(train.stages))


def _saved_seconds(rates: LoadingRates, reads: Reads, *, shared: bool, step: float) -> float:
    """Return what processes would save over the training, their start left out."""
    saved = 0.0
    for count, share in ((reads.fresh, 1.0), (reads.kept, rates.kept_share)):
        together = step + (share / (rates.core * rates.cores) if shared else 0.0)
        saved += count * (max(share / rates.threads, together) - max(share / rates.processes, together))
    return saved

"""Learning-rate range test (Smith 2017, arXiv 1506.01186): the loss under an exponentially rising learning rate.

The suggestion lies where the loss falls, before it diverges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.pipeline import compute_epoch_order
from imagetune.errors import DivergedError
from imagetune.recipe.sections.train import ScheduleConfig, StageConfig
from imagetune.training.feature_cache.features import build_feature_progress, compute_train_features
from imagetune.training.feature_cache.plan import FeaturePlan, plan_features, read_feature_settings
from imagetune.training.optimization.optimizer import Slots, list_inner_optimizers
from imagetune.training.setup.faults import convert_memory_errors
from imagetune.training.setup.job import (
    TrainingJob,
    build_objective,
    build_targets,
    compute_draw_probabilities,
    open_stage_batches,
)
from imagetune.training.setup.keras_feed import Feed, IndexedBatch
from imagetune.training.setup.stages import Objective, prepare_stage

MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-7, 10.0
MAX_STEPS = 100
# The test ends where the smoothed loss is this many times its minimum, as in fastai.
EXPLODED = 4.0
# Decay of the moving average of losses; with a lower one it would follow every batch.
SMOOTHING = 0.9
# The first smoothed losses are means of very few batches, whose falls are noise.
UNSETTLED_STEPS = 5
FLAT_SHARE = 0.1
# Smallest falls that count, as shares of the loss: over the whole fall, and in one step. Less is noise or rounding.
MIN_FALL, MIN_SLOPE = 0.01, 1e-3


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test with its suggested learning rates.

    Attributes:
        stage: Name of the stage.
        learning_rates: (n,) float64 learning rate of the head at each step, rising.
        losses: (n,) float64 loss of each step's images before its update.
        smoothed: (n,) float64 moving average of the losses.
        valley: Learning rate two thirds into the longest fall of the smoothed losses; None where they don't fall.
        steepest: Learning rate at which they fall fastest; None where they don't fall.
    """

    stage: str
    learning_rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    valley: float | None
    steepest: float | None

    @property
    def suggestion(self) -> float:
        """Suggested learning rate: the valley, else the steepest slope.

        Raises:
            DivergedError: The loss fell at no learning rate.
        """
        found = self.valley or self.steepest
        if found is not None:
            return found
        what = f"the loss is not a finite number even at a learning rate of {MIN_LEARNING_RATE:g}"
        if len(self.learning_rates):
            what = f"the loss fell at no learning rate from {MIN_LEARNING_RATE:g} to {self.learning_rates[-1]:.2g}"
        hint = "check the labels with `imagetune data check`, or set its learning_rate to a number"
        raise DivergedError(what, where=f"range test of stage {self.stage!r}", hint=hint)


class RisingLearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """An exponential rise from MIN_LEARNING_RATE to MAX_LEARNING_RATE over MAX_STEPS steps.

    Args:
        share: Share of the head's learning rate for these variables.
        first_count: The optimizer's count of passes at the first step.
        accumulation: Number of passes in a step, all of which the optimizer counts.
    """

    def __init__(self, share: float, *, first_count: int = 0, accumulation: int = 1) -> None:
        self.share = share
        self.first_count = first_count
        self.accumulation = accumulation

    def __call__(self, step: Any) -> Any:
        """Return the learning rate at the optimizer's count ``step`` as a backend scalar."""
        taken = keras.ops.floor_divide(step - self.first_count, self.accumulation)
        return self.share * MIN_LEARNING_RATE * keras.ops.exp(keras.ops.cast(taken, "float32") * _compute_growth())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, for Keras."""
        return {"share": self.share, "first_count": self.first_count, "accumulation": self.accumulation}


def find_stage_learning_rate(
    job: TrainingJob,
    model: keras.Model,
    stage: StageConfig,
    *,
    objective: Objective | None = None,
    slots: Slots | None = None,
) -> RangeTest:
    """Return the range test of a stage on its own layers, optimizer, images, augmentation and blending.

    All variables of the model are restored afterwards; its layers stay trainable or frozen as in the stage. Where that
    saves passes through frozen layers, their features are computed once, and are then there for the training, too.

    Args:
        job: The training job.
        model: The model that the stage trains, from ``stage_model``.
        stage: The stage; its ``learning_rate`` and ``schedule`` have no effect.
        objective: Training objective; by default that of the job, with the current weights as the pretrained ones.
        slots: Optimizer slots of earlier stages.

    Raises:
        ResourceError: Memory ran out.
        StoppedError: A signal was received.
        DataError: An image vanished.
    """
    constant = ScheduleConfig(name="constant", warmup_epochs=0.0)
    plain = stage.model_copy(update={"learning_rate": 1.0, "schedule": constant})
    with restore_variables(model), job.stop.deferred(), convert_memory_errors(job.config.pass_size):
        plan = _plan_test_features(job, plain, model)
        setup = prepare_stage(
            model,
            job.backbone,
            plain,
            job.config,
            steps_per_epoch=job.steps_per_epoch,
            objective=objective or build_objective(job),
            slots=slots,
            halves=plan.halves,
        )
        with _open_passes(job, stage, plan) as passes:
            curve = run_range_test(setup.learner, passes, accumulation=job.config.accumulation, check=job.stop.check)
    return read_curve(stage.name, *curve)


def run_range_test(
    learner: keras.Model, passes: Iterable[Sequence[Any]], *, accumulation: int = 1, check: Callable[[], None]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the learning rates and losses of training with a rising learning rate until the loss diverges.

    Its variables change: see `restore_variables`.

    Args:
        learner: Model compiled with a learning rate of 1 for the head, and each group's share of it for the others.
        passes: At least ``MAX_STEPS * accumulation`` tuples (images, targets[, weights]).
        accumulation: Number of passes in an optimizer step.
        check: Called after every step; may raise.

    Returns:
        Learning rate of the head and mean loss of each step, (n,) float64 each; all losses but the last are finite.
    """
    for inner in list_inner_optimizers(learner.optimizer):
        share = float(keras.ops.convert_to_numpy(inner.learning_rate))
        # `iterations` counts steps, while schedules are called with the count of passes.
        count = int(keras.ops.convert_to_numpy(inner.iterations)) * accumulation
        inner.learning_rate = RisingLearningRate(share, first_count=count, accumulation=accumulation)
    feed = iter(passes)
    losses: list[float] = []
    while len(losses) < MAX_STEPS:
        losses.append(float(np.mean([_train_pass(learner, next(feed)) for _ in range(accumulation)])))
        check()
        if not math.isfinite(losses[-1]):
            break
        settled = smooth_losses(np.array(losses))[UNSETTLED_STEPS:]
        if len(settled) and settled[-1] > EXPLODED * settled.min():
            break
    return MIN_LEARNING_RATE * np.exp(np.arange(len(losses)) * _compute_growth()), np.array(losses)


def read_curve(stage: str, learning_rates: NDArray[np.float64], losses: NDArray[np.float64]) -> RangeTest:
    """Return the range test of a stage with its suggestions, from learning rates (n,) and losses (n,)."""
    finite = np.isfinite(losses)
    tried, losses = learning_rates[finite], losses[finite]
    smoothed = smooth_losses(losses)
    return RangeTest(
        stage, tried, losses, smoothed, _look_up(tried, find_valley(smoothed)), _look_up(tried, find_steepest(smoothed))
    )


def smooth_losses(losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the exponential moving average (n,) of losses, with its bias towards zero corrected as in Adam."""
    smoothed, mean = np.empty_like(losses), 0.0
    for index, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1.0 - SMOOTHING) * loss
        smoothed[index] = mean / (1.0 - SMOOTHING ** (index + 1))
    return smoothed


def find_valley(smoothed: NDArray[np.float64]) -> int | None:
    """Return the position two thirds into the longest fall of the loss; None where it falls by less than 1%.

    The longest fall is the longest falling subsequence, so that small bumps don't end it; fastai made the idea popular.
    A flat start and a flat end, with less than a tenth of the fall each, don't count: their length says nothing about
    the learning rate.
    """
    points = [index + UNSETTLED_STEPS for index in _find_longest_fall(smoothed[UNSETTLED_STEPS:])]
    if not points:
        return None
    high, low = smoothed[points[0]], smoothed[points[-1]]
    if low > (1.0 - MIN_FALL) * high:
        return None
    margin = FLAT_SHARE * (high - low)
    first = max(index for index in points if smoothed[index] >= high - margin)
    last = min(index for index in points if smoothed[index] <= low + margin)
    return first + round((last - first) * 2 / 3)


def find_steepest(smoothed: NDArray[np.float64]) -> int | None:
    """Return the position of the steepest fall over the logarithm of the learning rate; None without a fall."""
    settled = smoothed[UNSETTLED_STEPS:]
    if len(settled) < 2:
        return None
    slopes = np.gradient(settled)
    index = int(slopes.argmin())
    return index + UNSETTLED_STEPS if slopes[index] < -MIN_SLOPE * settled[index] else None


@contextmanager
def restore_variables(model: keras.Model) -> Iterator[None]:
    """Restore all variables of a model after the block, the random state of its dropout included."""
    before = [(variable, keras.ops.convert_to_numpy(variable).copy()) for variable in model.variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def _count_epochs(job: TrainingJob) -> int:
    """Return over how many epochs a test goes, of full batches only."""
    whole = len(job.images.train) // min(job.config.pass_size, len(job.images.train))
    return -(-MAX_STEPS * job.config.accumulation // whole)


def _plan_test_features(job: TrainingJob, stage: StageConfig, model: keras.Model) -> FeaturePlan:
    """Return the plan of a test's features: those of a frozen backbone, where the test sees each image several times.

    A cut inside the backbone is not worth measuring for a hundred steps.
    """
    frozen = read_feature_settings(job.config, stage).caches_backbone
    plan = plan_features(job, stage, model) if frozen else FeaturePlan("the backbone is trained")
    copies = min(plan.copies, _count_epochs(job))
    return replace(plan, copies=copies) if copies < _count_epochs(job) else FeaturePlan("each image is seen once")


@contextmanager
def _open_passes(job: TrainingJob, stage: StageConfig, plan: FeaturePlan) -> Iterator[Iterator[Sequence[Any]]]:
    """Yield enough batches for a test, only full ones: the loss of a few images says little."""
    count, epochs = len(job.images.train), _count_epochs(job)
    size = min(job.config.pass_size, count)
    with ExitStack() as stack:
        batches: Iterable[IndexedBatch]
        if plan.halves is None:
            batches = stack.enter_context(open_stage_batches(job, stage, epochs=epochs))
        else:
            progress, probabilities = build_feature_progress(job, stage), compute_draw_probabilities(job)
            features = compute_train_features(job, stage, plan, plan.halves, first_epoch=0, progress=progress)
            batches = features.batches(
                lambda epoch: compute_epoch_order(count, job.seed, epoch, probabilities),
                batch_size=job.config.pass_size,
                epochs=epochs,
            )
        yield (batch for batch in Feed(batches, build_targets(job)) if len(batch[0]) == size)


def _find_longest_fall(values: NDArray[np.float64]) -> list[int]:
    """Return the positions of the longest falling subsequence; of several, the one that ends first.

    Each value is lower than the one before by a share of at least MIN_SLOPE, or a long flat stretch would win.
    """
    lengths, before = np.ones(len(values), dtype=int), np.full(len(values), -1)
    for index in range(1, len(values)):
        higher = np.flatnonzero((1.0 - MIN_SLOPE) * values[:index] > values[index])
        if len(higher):
            best = higher[lengths[higher].argmax()]
            lengths[index], before[index] = lengths[best] + 1, best
    chain: list[int] = []
    at = int(lengths.argmax()) if len(values) else -1
    while at >= 0:
        chain.append(at)
        at = int(before[at])
    return chain[::-1]


def _train_pass(learner: keras.Model, batch: Sequence[Any]) -> float:
    learner.reset_metrics()  # the reported loss is a mean since the last reset
    return float(learner.train_on_batch(*batch, return_dict=True)["loss"])


def _look_up(learning_rates: NDArray[np.float64], index: int | None) -> float | None:
    return None if index is None else float(learning_rates[index])


def _compute_growth() -> float:
    """Return the natural logarithm of the ratio of two neighbouring learning rates."""
    return math.log(MAX_LEARNING_RATE / MIN_LEARNING_RATE) / (MAX_STEPS - 1)

"""The largest batch size that fits in memory, found by trial.

Each size is tried in a process of its own, ``python -m imagetune.training.measure.batch_size``: running out of memory
then ends that process and nothing else, and a GPU's memory is free again afterwards.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np
import psutil
from pydantic import Field

from imagetune.core.messages import Say
from imagetune.errors import ImagetuneError, RecipeError, ResourceError
from imagetune.model.backbones.table import Backbone, get_backbone
from imagetune.model.build import backbone_of, build_model
from imagetune.model.trainable import chosen_layers
from imagetune.recipe.base import PositiveInt, Section
from imagetune.recipe.data import DataConfig
from imagetune.recipe.model import ModelConfig
from imagetune.recipe.train import StageConfig, TrainConfig
from imagetune.training.measure.plan import peak_memory_bytes
from imagetune.training.objectives.penalties import copy_pretrained_weights
from imagetune.training.setup.faults import memory_errors
from imagetune.training.setup.job import stage_data
from imagetune.training.setup.stages import Objective, prepare_stage

WORKER = (sys.executable, "-m", "imagetune.training.measure.batch_size")
# The rest is for decoding processes, validation and whatever else runs on the machine.
MEMORY_SHARE = 0.6
POLL_SECONDS = 0.05


class Load(Section):
    """What has to fit into memory."""

    model: ModelConfig
    """Backbone and head."""
    train: TrainConfig
    """Stages, optimizer, precision and the images a step."""
    data: DataConfig
    """Image size and task."""
    outputs: PositiveInt
    """Number of the model's outputs."""
    batch_size: PositiveInt | None = Field(default=None)
    """Images at a time in this trial."""


def fitting_batch_size(load: Load, *, say: Say, worker: Sequence[str] = WORKER) -> TrainConfig:
    """Return ``load.train`` with the largest batch size that fits; the images an optimizer step stay as they are.

    Args:
        load: What has to fit.
        say: Hears what is tried and what fits.
        worker: Command line of the process that tries a size.

    Raises:
        ResourceError: Not even the smallest size fits.
        RecipeError: A stage unfreezes what the backbone doesn't have.
    """
    whole = load.train.step_size

    def fits(size: int) -> bool:
        say("batch", f"trying {size} images at a time")
        return fits_in_memory(load.model_copy(update={"batch_size": size}), worker=worker)

    size = largest_fitting(candidate_sizes(whole), fits)
    passes = whole // size
    say("batch", f"{size} of {whole} fits" + (f"; {passes} passes a step" if passes > 1 else ""))
    return with_batch_size(load.train, size)


def with_batch_size(train: TrainConfig, size: int) -> TrainConfig:
    """Return the section with ``size`` images at a time and as many an optimizer step as before."""
    return train.model_copy(update={"batch_size": size, "effective_batch": train.step_size})


def candidate_sizes(step_size: int) -> list[int]:
    """Return the whole step and the powers of two that divide it, largest first."""
    powers = [1 << exponent for exponent in range(step_size.bit_length()) if step_size % (1 << exponent) == 0]
    return sorted({step_size, *powers}, reverse=True)


def largest_fitting(sizes: Sequence[int], fits: Callable[[int], bool]) -> int:
    """Return the first size that fits.

    Raises:
        ResourceError: None does.
    """
    for size in sizes:
        if fits(size):
            return size
    hint = "set a smaller data.image_size, or let fewer layers train"
    what = f"no batch size fits in memory, not even {sizes[-1]}"
    if sizes[-1] > 1:
        hint = f"set a train.effective_batch that can be halved, such as {1 << (sizes[-1].bit_length() - 1)}"
    raise ResourceError(what, where="train.batch_size", hint=hint)


def fits_in_memory(load: Load, *, worker: Sequence[str] = WORKER) -> bool:
    """Tell whether two training steps of a size fit into memory, by running them in a process of their own.

    Args:
        load: What has to fit, with its ``batch_size``.
        worker: Command line of that process. It reads the load as JSON and predictions with a line of JSON:
            ``{"peak_bytes": N}``, ``{"out_of_memory": true}`` or ``{"recipe_error": [what, where, hint]}``.

    Raises:
        RecipeError: A stage unfreezes what the backbone doesn't have.
        ImagetuneError: The process failed for another reason than memory.
    """
    limit = int(MEMORY_SHARE * available_memory())
    with tempfile.TemporaryFile("w+") as given, tempfile.TemporaryFile("w+") as output:
        given.write(load.model_dump_json())
        given.seek(0)
        with tempfile.TemporaryFile("w+") as complaints:
            code = _run_watched(worker, given, output, complaints, limit)
            complaints.seek(0)
            reason = complaints.read().strip().rpartition("\n")[2]
        output.seek(0)
        prediction = _last_json(output.read())
    if "recipe_error" in prediction:
        what, where, hint = prediction["recipe_error"]
        raise RecipeError(what, where=where, hint=hint)
    # Killed by us, by the system, or aborted by a library that got no memory.
    if code < 0 or prediction.get("out_of_memory"):
        return False
    if "peak_bytes" not in prediction:
        raise ImagetuneError(f"trying a batch size failed: {reason}", where="train.batch_size")
    return bool(prediction["peak_bytes"] <= limit)


def available_memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes this process may still use: of the machine, or of the container it runs in.

    Args:
        root: Where Linux shows control groups.
    """
    rooms = [psutil.virtual_memory().available]
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit_bytes, now = int((root / limit).read_text()), int((root / used).read_text())
            counts = dict(line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # another system, the other version, or "max": no limit
            continue
        rooms.append(limit_bytes - now + int(counts.get(cache, 0)))  # cached files make room when it is needed
    return max(min(rooms), 0)


def measure(load: Load) -> int:
    """Run two training steps on black images for each stage that may need the most; return this process's peak.

    Returns:
        Bytes of main memory at the highest.

    Raises:
        ResourceError: Memory ran out.
        RecipeError: A stage unfreezes what the backbone doesn't have.
    """
    size = load.batch_size or load.train.step_size
    train = with_batch_size(load.train, size).model_copy(update={"teacher": None})
    keras.config.set_dtype_policy(train.precision)
    backbone = get_backbone(load.model.backbone)
    with memory_errors(size):
        first = _build(load, load.data)
        for stage in demanding_stages(first, backbone, train.stages, load.data):
            data = stage_data(load.data, stage)
            model = first if data.image == load.data.image else _build(load, data)
            _two_steps(model, backbone, stage, train, load.data)
    return peak_memory_bytes()


def demanding_stages(
    model: keras.Model, backbone: Backbone, stages: Sequence[StageConfig], data: DataConfig
) -> list[StageConfig]:
    """Return the stages that may need the most memory: those that no other outdoes in layers and image size."""
    needs = []
    for stage in stages:
        image = stage_data(data, stage).image
        needs.append((chosen_layers(model, backbone, stage.unfreeze), image.height * image.width))
    kept: list[int] = []
    for index in sorted(range(len(stages)), key=lambda index: (len(needs[index][0]), needs[index][1]), reverse=True):
        layers, pixels = needs[index]
        if not any(layers <= needs[other][0] and pixels <= needs[other][1] for other in kept):
            kept.append(index)
    return [stages[index] for index in kept]


def main() -> None:
    """Try one size: read a load from standard input, prediction on standard output."""
    prediction: dict[str, Any]
    try:
        prediction = {"peak_bytes": measure(Load.model_validate_json(sys.stdin.read()))}
    except ResourceError:
        prediction = {"out_of_memory": True}
    except RecipeError as error:
        prediction = {"recipe_error": [error.what, error.where, error.hint]}
    print(json.dumps(prediction), flush=True)


def _build(load: Load, data: DataConfig) -> keras.Model:
    size = (data.image.height, data.image.width)
    return build_model(load.model, num_classes=load.outputs, image_size=size, task=data.task)


def _two_steps(
    model: keras.Model, backbone: Backbone, stage: StageConfig, train: TrainConfig, data: DataConfig
) -> None:
    # Memory doesn't depend on it, and `auto` is no number.
    stage = stage.model_copy(update={"learning_rate": 1e-3})
    outputs = model.output_shape[-1]
    anchors = copy_pretrained_weights(backbone_of(model), train.regularisation)
    objective = Objective(data.task, np.full(outputs, 1 / outputs), anchors)
    setup = prepare_stage(model, backbone, stage, train, steps_per_epoch=2, objective=objective)
    images = np.zeros((train.pass_size, *model.input_shape[1:]), np.uint8)
    # Slots of the optimizer and buffers of the compiled step are there from the second step on.
    for _ in range(2):
        setup.learner.train_on_batch(images, np.zeros((train.pass_size, outputs), np.float32))


def _run_watched(command: Sequence[str], given: IO[str], output: IO[str], complaints: IO[str], limit: int) -> int:
    """Run a process and kill it when it holds more than ``limit`` bytes; return its exit code, negative if killed."""
    process = psutil.Popen(command, stdin=given, stdout=output, stderr=complaints)
    try:
        while process.poll() is None:
            if _held(process) > limit:
                process.kill()
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    return int(process.returncode)


def _held(process: psutil.Popen) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _last_json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    main()

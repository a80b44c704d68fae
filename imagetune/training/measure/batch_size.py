"""Search for the largest batch size that fits in memory (``train.batch_size: auto``).

Each size is tried in a process of its own, ``python -m imagetune.training.measure.batch_size``: running out of memory
then ends only that process, and a GPU's memory is free again afterwards.
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
from imagetune.model.build import build_model, find_backbone
from imagetune.model.keras_settings import set_keras_settings
from imagetune.model.trainable import find_unfrozen_layers
from imagetune.recipe.sections.base import PositiveInt, Section
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.training.measure.plan import measure_peak_memory
from imagetune.training.objectives.penalties import copy_pretrained_weights
from imagetune.training.setup.faults import convert_memory_errors
from imagetune.training.setup.job import resolve_stage_data
from imagetune.training.setup.stages import Objective, prepare_stage

WORKER = (sys.executable, "-m", "imagetune.training.measure.batch_size")
# The rest is for decoding processes, validation and whatever else runs on the machine.
MEMORY_SHARE = 0.6
POLL_SECONDS = 0.05


class Load(Section):
    """A training whose steps have to fit into memory, as it is sent to the process that tries it."""

    model: ModelConfig
    """Backbone and head of the model."""
    train: TrainConfig
    """Stages, optimizer, precision and images in a step."""
    data: DataConfig
    """Image size and task."""
    outputs: PositiveInt
    """Number of the model's outputs."""
    batch_size: PositiveInt | None = Field(default=None)
    """Number of images in a pass of this trial; by default a whole step."""


def find_batch_size(load: Load, *, say: Say, worker: Sequence[str] = WORKER) -> TrainConfig:
    """Return the ``train`` section with the largest batch size that fits in memory and the same images in a step.

    Args:
        load: The training that has to fit.
        say: Receives messages about what is tried and what fits.
        worker: Command line of the process that tries a size.

    Raises:
        ResourceError: Not even the smallest size fits.
        RecipeError: A stage unfreezes a block or layer that the backbone doesn't have.
    """
    whole = load.train.step_size

    def fits(size: int) -> bool:
        say("batch", f"trying {size} images at a time")
        return fits_in_memory(load.model_copy(update={"batch_size": size}), worker=worker)

    size = find_largest_fitting(list_candidate_sizes(whole), fits)
    passes = whole // size
    say("batch", f"{size} of {whole} fits" + (f"; {passes} passes a step" if passes > 1 else ""))
    return set_batch_size(load.train, size)


def set_batch_size(train: TrainConfig, size: int) -> TrainConfig:
    """Return the ``train`` section with ``size`` images in a pass and as many in an optimizer step as before."""
    return train.model_copy(update={"batch_size": size, "effective_batch": train.step_size})


def list_candidate_sizes(step_size: int) -> list[int]:
    """Return the batch sizes to try, largest first: the whole step and the powers of two that divide it."""
    # Only divisors, so that passes of one size make up the whole step.
    powers = [1 << exponent for exponent in range(step_size.bit_length()) if step_size % (1 << exponent) == 0]
    return sorted({step_size, *powers}, reverse=True)


def find_largest_fitting(sizes: Sequence[int], fits: Callable[[int], bool]) -> int:
    """Return the first of the sizes that fits.

    Raises:
        ResourceError: None of them fits.
    """
    for size in sizes:
        if fits(size):
            return size
    hint = "set a smaller data.image_size, or train fewer layers"
    what = f"no batch size fits in memory, not even {sizes[-1]}"
    if sizes[-1] > 1:
        hint = f"set a train.effective_batch that can be halved, such as {1 << (sizes[-1].bit_length() - 1)}"
    raise ResourceError(what, where="train.batch_size", hint=hint)


def fits_in_memory(load: Load, *, worker: Sequence[str] = WORKER) -> bool:
    """Return whether two training steps of a batch size fit into memory, by running them in another process.

    Args:
        load: The training that has to fit, with its ``batch_size``.
        worker: Command line of that process. It reads the load as JSON and replies with a line of JSON:
            ``{"peak_bytes": N}``, ``{"out_of_memory": true}`` or ``{"recipe_error": [what, where, hint]}``.

    Raises:
        RecipeError: A stage unfreezes what the backbone doesn't have.
        ImagetuneError: The process failed for another reason than memory.
    """
    limit = int(MEMORY_SHARE * measure_available_memory())
    # Files and not pipes: nobody reads while the process is watched, so a full pipe would block it.
    with tempfile.TemporaryFile("w+") as request, tempfile.TemporaryFile("w+") as output:
        request.write(load.model_dump_json())
        request.seek(0)
        with tempfile.TemporaryFile("w+") as errors:
            code = _run_watched(worker, request, output, errors, limit)
            errors.seek(0)
            reason = errors.read().strip().rpartition("\n")[2]
        output.seek(0)
        reply = _parse_last_line(output.read())
    if "recipe_error" in reply:
        what, where, hint = reply["recipe_error"]
        raise RecipeError(what, where=where, hint=hint)
    # Killed by us, by the system, or aborted by a library that got no memory.
    if code < 0 or reply.get("out_of_memory"):
        return False
    if "peak_bytes" not in reply:
        raise ImagetuneError(f"trying a batch size failed: {reason}", where="train.batch_size")
    return bool(reply["peak_bytes"] <= limit)


def measure_available_memory(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the memory in bytes that this process may still use, of the machine or of its container.

    Args:
        root: Folder in which Linux shows control groups.
    """
    available = [psutil.virtual_memory().available]
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit_bytes, now = int((root / limit).read_text()), int((root / used).read_text())
            counts = dict(line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # another system, the other version, or "max": no limit
            continue
        # Cached files are given up when memory is needed.
        available.append(limit_bytes - now + int(counts.get(cache, 0)))
    return max(min(available), 0)


def measure(load: Load) -> int:
    """Return the peak memory in bytes of two training steps, on black images, of each stage that may need the most.

    Raises:
        ResourceError: Memory ran out.
        RecipeError: A stage unfreezes what the backbone doesn't have.
    """
    size = load.batch_size or load.train.step_size
    train = set_batch_size(load.train, size).model_copy(update={"teacher": None})
    set_keras_settings(train.precision)
    backbone = get_backbone(load.model.backbone)
    with convert_memory_errors(size):
        first = _build_model(load, load.data)
        for stage in find_demanding_stages(first, backbone, train.stages, load.data):
            data = resolve_stage_data(load.data, stage)
            model = first if data.image == load.data.image else _build_model(load, data)
            _run_two_steps(model, backbone, stage, train, load.data)
    return measure_peak_memory()


def find_demanding_stages(
    model: keras.Model, backbone: Backbone, stages: Sequence[StageConfig], data: DataConfig
) -> list[StageConfig]:
    """Return the stages that may need the most memory: no other trains all their layers on images as large."""
    needs = []
    for stage in stages:
        image = resolve_stage_data(data, stage).image
        needs.append((find_unfrozen_layers(model, backbone, stage.unfreeze), image.height * image.width))
    kept: list[int] = []
    for index in sorted(range(len(stages)), key=lambda index: (len(needs[index][0]), needs[index][1]), reverse=True):
        layers, pixels = needs[index]
        if not any(layers <= needs[other][0] and pixels <= needs[other][1] for other in kept):
            kept.append(index)
    return [stages[index] for index in kept]


def main() -> None:
    """Try one batch size: read a load from standard input, and write the reply to standard output."""
    reply: dict[str, Any]
    try:
        reply = {"peak_bytes": measure(Load.model_validate_json(sys.stdin.read()))}
    except ResourceError:
        reply = {"out_of_memory": True}
    except RecipeError as error:
        reply = {"recipe_error": [error.what, error.where, error.hint]}
    print(json.dumps(reply), flush=True)


def _build_model(load: Load, data: DataConfig) -> keras.Model:
    size = (data.image.height, data.image.width)
    return build_model(load.model, num_classes=load.outputs, image_size=size, task=data.task)


def _run_two_steps(
    model: keras.Model, backbone: Backbone, stage: StageConfig, train: TrainConfig, data: DataConfig
) -> None:
    # Memory doesn't depend on the learning rate, and `auto` is not a number.
    stage = stage.model_copy(update={"learning_rate": 1e-3})
    outputs = model.output_shape[-1]
    anchors = copy_pretrained_weights(find_backbone(model), train.regularisation)
    objective = Objective(data.task, np.full(outputs, 1 / outputs), anchors)
    setup = prepare_stage(model, backbone, stage, train, steps_per_epoch=2, objective=objective)
    images = np.zeros((train.pass_size, *model.input_shape[1:]), np.uint8)
    # The optimizer's slots and the compiled step's buffers are allocated from the second step on.
    for _ in range(2):
        setup.learner.train_on_batch(images, np.zeros((train.pass_size, outputs), np.float32))


def _run_watched(command: Sequence[str], request: IO[str], output: IO[str], errors: IO[str], limit: int) -> int:
    """Run a process, killed when it holds more than ``limit`` bytes; return its exit code, negative if killed."""
    process = psutil.Popen(command, stdin=request, stdout=output, stderr=errors)
    try:
        while process.poll() is None:
            if _read_memory(process) > limit:
                process.kill()
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    return int(process.returncode)


def _read_memory(process: psutil.Popen) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _parse_last_line(text: str) -> dict[str, Any]:
    try:
        # Libraries may have printed before the reply.
        found = json.loads(text.strip().rpartition("\n")[2])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


if __name__ == "__main__":
    main()

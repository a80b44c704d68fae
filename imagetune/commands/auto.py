"""The recipe of `imagetune auto`: a bake-off of the backbones whose weights are at hand, within a time.

What it describes is a search like others: `imagetune search` repeats and resumes it from the run folder's recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagetune.core.path_names import expand_home
from imagetune.errors import CheckpointError, WeightsError
from imagetune.model.backbones.table import Backbone, list_backbones
from imagetune.model.weights.imagenet import weights_state
from imagetune.recipe.loading import RecipeSource, build_name, load_recipe
from imagetune.run_folder.folder import RunFolder

Preference = Literal["accuracy", "speed", "size"]
DEFAULT_SECONDS = 1800.0
# The first is tried with every backbone, the others with the best: larger images were better on four of five sets
# (docs/quality.md), smaller ones are for those who need speed.
IMAGE_SIZES = (224, 288)
QUICK_IMAGE_SIZES = (224, 160, 288)


@dataclass(frozen=True)
class AutoOptions:
    """What the user wants of the model, and how long it may take.

    Attributes:
        seconds: Time from the start to the tested model.
        prefer: What decides between backbones that are equally good.
        max_latency_ms: Largest latency of one image on this machine; None for any.
    """

    seconds: float = DEFAULT_SECONDS
    prefer: Preference = "accuracy"
    max_latency_ms: float | None = None


def find_auto_recipe(
    source: str | Path, options: AutoOptions | None = None, *, run_dir: Path | None = None, resume: bool = False
) -> RecipeSource:
    """Return the recipe that `imagetune auto` gives to `imagetune.commands.search.search`.

    Args:
        source: A folder of images or a table, as ``data.source`` of a recipe.
        options: Time and preferences; by default half an hour, for accuracy.
        run_dir: The run folder.
        resume: Whether to go on with what was begun in ``run_dir``: then it is the recipe of then.

    Raises:
        WeightsError: No backbone has pretrained weights on this machine.
        CheckpointError: There is nothing to go on with, or it was begun with other images.
    """
    if not resume:
        return build_auto_recipe(source, options or AutoOptions())
    if run_dir is None or not (begun := RunFolder(run_dir).recipe).is_file():
        what = "--resume needs a run folder" if run_dir is None else "there is nothing to go on with"
        hint = "name the run folder: imagetune auto SOURCE --run-dir runs/NAME --resume"
        raise CheckpointError(what, where="" if run_dir is None else str(run_dir), hint=hint)
    before, now = load_recipe(begun).recipe.data.source, str(locate_source(source))
    if before != now:
        hint = "name these images; where they have moved, imagetune search RUN/recipe.yaml -o data.source=... --resume"
        raise CheckpointError(f"was begun with the images of {before}, not of {now}", where=str(run_dir), hint=hint)
    return begun


def locate_source(source: str | Path) -> Path:
    """Return the absolute path of a folder of images or a table."""
    return expand_home(source).absolute()


def build_auto_recipe(source: str | Path, options: AutoOptions) -> dict[str, Any]:
    """Return the recipe of a bake-off over the backbones at hand, as a mapping.

    Raises:
        WeightsError: No backbone has pretrained weights on this machine.
    """
    place = locate_source(source)
    search: dict[str, Any] = {
        "algorithm": "bakeoff",
        "objective": "loss",
        "budget": {"hours": options.seconds / 3600},
        "repeats": 1,
        "prefer": options.prefer,
    }
    if options.max_latency_ms is not None:
        search["max_latency_ms"] = options.max_latency_ms
    quick = options.prefer != "accuracy" or options.max_latency_ms is not None
    sizes = QUICK_IMAGE_SIZES if quick else IMAGE_SIZES
    names = [backbone.name for backbone in list_local_backbones()]
    return {
        "name": f"auto-{build_name(place)}",
        "data": {"source": str(place), "image_size": {"search": "choice", "values": list(sizes)}},
        "model": {"backbone": {"search": "choice", "values": names}},
        "train": {"stages": "auto"},
        "search": search,
    }


def list_local_backbones() -> list[Backbone]:
    """Return the backbones whose ImageNet weights are on this machine, the cheapest first.

    Raises:
        WeightsError: There is none.
    """
    found = [one for one in list_backbones() if weights_state(one, verify=False) in ("packaged", "cached")]
    if not found:
        raise WeightsError(
            "no backbone has pretrained weights on this machine",
            where="imagetune weights list",
            hint="imagetune weights fetch NAME downloads them",
        )
    # The time of a pass grows with both; what the time no longer allows is what is dearest.
    return sorted(found, key=lambda backbone: backbone.parameters * backbone.default_size**2)

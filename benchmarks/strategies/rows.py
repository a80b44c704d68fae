"""The compared strategies as data: the keys that each changes in the base recipe."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagetune.recipe.presets import expand_stages

EPOCHS = 10
BASELINE = "head_then_top"
BALANCED_SETS = ("clipart", "digits", "fashion")
LONG_TAIL_SETS = ("digits_long_tail",)
# Three times the default: a few hundred images and ten epochs are few steps, and at the default learning rate every
# row would be judged far from convergence.
HEAD_RATE = 3e-3
TOP_RATE = 3e-4


@dataclass(frozen=True)
class Row:
    """A recipe that differs from the base in a few keys.

    Attributes:
        name: Short name, unique.
        group: Heading in the table.
        changes: Values by dotted path; ``train.stages.*.x`` sets x in every stage.
        preset: The preset whose stages it has.
        sets: The sets of images that it is measured on.
    """

    name: str
    group: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    preset: str = BASELINE
    sets: tuple[str, ...] = BALANCED_SETS

    def train_section(self) -> dict[str, Any]:
        """Return the stages of the preset with `EPOCHS` epochs in all; a first stage takes what does not divide."""
        section = expand_stages({"stages": self.preset, "learning_rate": HEAD_RATE})
        stages = [dict(stage) for stage in section["stages"]]
        share = EPOCHS // len(stages)
        for index, stage in enumerate(stages):
            stage["epochs"] = share if index else EPOCHS - share * (len(stages) - 1)
        return {"stages": stages}

    def recipe(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole recipe of a row from the base recipe of a set of images."""
        root = copy.deepcopy(dict(base))
        root["train"] = {**root.get("train", {}), **self.train_section()}
        for path, value in self.changes.items():
            _assign(root, path.split("."), value)
        return root


def _assign(node: Any, path: list[str], value: Any) -> None:
    first, *rest = path
    if first == "*":
        for item in node:
            _assign(item, rest, value)
    elif not rest:
        node[int(first) if isinstance(node, list) else first] = copy.deepcopy(value)
    else:
        inner = node[int(first)] if isinstance(node, list) else node.setdefault(first, {})
        _assign(inner, rest, value)


_HEAD_LR, _TOP_LR = "train.stages.0.learning_rate", "train.stages.1.learning_rate"
_ALL = {"train.stages.1.unfreeze": "all"}

PRESET_ROWS = (
    Row(BASELINE, "presets"),
    *(Row(name, "presets", preset=name) for name in ("linear_probe", "lp_ft", "gradual", "full")),
)

DEPTH_ROWS = (
    Row("everything in stage two", "depth and learning rates", _ALL),
    Row("everything, layer_decay 0.8", "depth and learning rates", {**_ALL, "train.stages.1.layer_decay": 0.8}),
    Row("layer_decay 0.8", "depth and learning rates", {"train.stages.1.layer_decay": 0.8}),
    Row("learning rates / 3", "depth and learning rates", {_HEAD_LR: 1e-3, _TOP_LR: 1e-4}),
    Row("learning_rate auto", "depth and learning rates", {"train.stages.*.learning_rate": "auto"}),
)

NORMALISATION_ROWS = (
    Row("batch_norm train", "BatchNorm", {"train.stages.1.batch_norm": "train"}),
    Row("statistics reestimated", "BatchNorm", {"train.batch_norm_statistics": "reestimate"}),
)

OPTIMISATION_ROWS = (
    Row("schedule one_cycle", "optimisation", {"train.stages.*.schedule": "one_cycle"}),
    Row("schedule constant", "optimisation", {"train.stages.*.schedule": "constant"}),
    Row("sgd, learning rates x 10", "optimisation", {"train.optimizer": "sgd", _HEAD_LR: 3e-2, _TOP_LR: 3e-3}),
    Row("clip_norm 1", "optimisation", {"train.optimizer": {"name": "adamw", "clip_norm": 1.0}}),
    Row("average ema 0.95", "optimisation", {"train.average": {"name": "ema", "decay": 0.95}}),
    Row("average swa", "optimisation", {"train.average": "swa"}),
)

REGULARISATION_ROWS = (
    Row("weight_decay 0", "regularisation", {"train.optimizer": {"name": "adamw", "weight_decay": 0.0}}),
    Row("weight_decay 0.01", "regularisation", {"train.optimizer": {"name": "adamw", "weight_decay": 0.01}}),
    Row("l2_sp 0.01", "regularisation", {"train.regularisation": {"l2_sp": 0.01}}),
    Row("dropout 0", "regularisation", {"model.head": {"dropout": 0.0}}),
    Row("drop_path 0", "regularisation", {"model.drop_path": 0.0}),
    Row("label_smoothing 0.1", "regularisation", {"train.label_smoothing": 0.1}),
    Row("focal loss", "regularisation", {"train.loss": "focal"}),
)

IMAGE_ROWS = (
    Row("augmentation none", "images", {"data.augmentation": "none"}),
    Row("augmentation medium", "images", {"data.augmentation": "medium"}),
    Row("augmentation strong", "images", {"data.augmentation": "strong"}),
    Row("mixup", "images", {"train.mix": "mixup"}),
    Row("cutmix", "images", {"train.mix": "cutmix"}),
    Row("small images first", "images", {"train.stages.0.image_size": 48}),
    Row("horizontal_flip at test", "images", {"evaluate.tta": ["horizontal_flip"]}),
)

COMBINED_ROWS = (
    Row(
        "deep, strongly augmented",
        "combined",
        {
            **_ALL,
            _TOP_LR: 7e-4,
            "train.stages.1.layer_decay": 0.9,
            "train.label_smoothing": 0.1,
            "model.head": {"dropout": 0.3},
            "data.augmentation": "strong",
        },
    ),
)

# All other rows start every epoch from the images, so that they don't depend on what a cache does.
CACHE_ROWS = (
    Row("head from 1 augmented copy", "cached features", {"train.cache": "auto", "train.augmented_copies": 1}),
    Row("head from 4 augmented copies", "cached features", {"train.cache": "auto", "train.augmented_copies": 4}),
    Row(
        "probe from 1 augmented copy",
        "cached features",
        {"train.cache": "auto", "train.augmented_copies": 1},
        preset="linear_probe",
    ),
    Row(
        "probe from 4 augmented copies",
        "cached features",
        {"train.cache": "auto", "train.augmented_copies": 4},
        preset="linear_probe",
    ),
)

IMBALANCE_ROWS = (
    Row(f"{BASELINE}, long tail", "imbalance", sets=LONG_TAIL_SETS),
    Row("class_weights balanced", "imbalance", {"train.class_weights": "balanced"}, sets=LONG_TAIL_SETS),
    Row("class_weights effective", "imbalance", {"train.class_weights": "effective_number"}, sets=LONG_TAIL_SETS),
    Row("sampling balanced", "imbalance", {"train.sampling": "balanced"}, sets=LONG_TAIL_SETS),
    Row("sampling square_root", "imbalance", {"train.sampling": "square_root"}, sets=LONG_TAIL_SETS),
    Row("logit_adjustment 1", "imbalance", {"train.loss": {"logit_adjustment": 1.0}}, sets=LONG_TAIL_SETS),
)

ROWS = (
    *PRESET_ROWS,
    *DEPTH_ROWS,
    *NORMALISATION_ROWS,
    *OPTIMISATION_ROWS,
    *REGULARISATION_ROWS,
    *IMAGE_ROWS,
    *COMBINED_ROWS,
    *CACHE_ROWS,
    *IMBALANCE_ROWS,
)


def find_baseline(row: Row) -> str:
    """Return the name of the row that ``row`` is compared with."""
    if row.group == "cached features":
        return row.preset
    return IMBALANCE_ROWS[0].name if row.group == "imbalance" else BASELINE


def describe_changes(row: Row) -> str:
    """Return the changes of a row as they are spelled in a recipe."""
    if not row.changes:
        return f"`stages: {row.preset}`, `learning_rate: {HEAD_RATE:g}`"
    return ", ".join(f"`{path.removeprefix('train.')}: {_plain(value)}`" for path, value in row.changes.items())


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_plain(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The rows of the table: what is trained and how; a row more is a line here."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["plain", "probe", "neighbours", "one_cycle", "soup", "fit", "auto"]
BASELINE = "plain script"
PEERS, OURS = "peers", "imagetune"


@dataclass(frozen=True)
class Row:
    """One way to get a model.

    Attributes:
        name: Short name, unique.
        kind: The program: one of the peers, or ``fit`` and ``auto`` for the commands of imagetune.
        changes: For ``fit``: values of the recipe by dotted path; everything else has its default.
        backbone: Name of the backbone in a recipe.
        image_size: In pixels.
        repeats: Trainings a split; their metrics are averaged.
        epochs: For ``plain``: of the head, then of everything.
        times: For ``auto``: its ``--time``, in times of the plain script on the same split.
    """

    name: str
    kind: Kind
    changes: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "efficientnet_lite0"
    image_size: int = 160
    repeats: int = 1
    epochs: tuple[int, int] = (10, 10)
    times: float = 3.0

    @property
    def group(self) -> str:
        """Heading in the table."""
        return OURS if self.kind in ("fit", "auto") else PEERS

    def recipe(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the whole recipe of a ``fit`` row from what all of a split share."""
        root: dict[str, Any] = copy.deepcopy(dict(base))
        root["data"] = {**root.get("data", {}), "image_size": self.image_size}
        root["model"] = {**root.get("model", {}), "backbone": self.backbone, "weights": "imagenet"}
        for path, value in self.changes.items():
            *folders, key = path.split(".")
            node = root
            for name in folders:
                node = node.setdefault(name, {})
            node[key] = value
        return root


ROWS = (
    Row(BASELINE, "plain", repeats=2),
    # How much of a difference is only that the script's head isn't trained for long enough.
    Row("plain script, 50 epochs of the head", "plain", epochs=(50, 0)),
    Row("probe", "probe"),
    Row("nearest neighbours", "neighbours"),
    Row("auto, the default", "fit", {"train.stages": "auto"}),
    # The backbone and the image size are its own choice; that of the others is one.
    Row("imagetune auto, three times the script's time", "auto"),
    Row("auto at 288 pixels", "fit", {"train.stages": "auto"}, image_size=288),
    Row("linear_probe", "fit", {"train.stages": "linear_probe"}),
    Row("head_then_top, the head trained", "fit", {"train.stages": "head_then_top", "train.solve": False}),
    Row("linear_probe, the head trained", "fit", {"train.stages": "linear_probe", "train.solve": False}),
    Row("one cycle, fastai's defaults", "one_cycle"),
    Row("soup of 3, AutoGluon's defaults", "soup"),
)


def find_row(name: str) -> Row:
    """Return the row of a name."""
    return next(row for row in ROWS if row.name == name)

"""Stage presets (auto, linear_probe, head_then_top, lp_ft, gradual, full), expanded into lists of stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagetune.core.text import format_list, suggest_name

# On three sets of small images a third of this learning rate was worse in five of six pairs, and no preset was clearly
# better than the default (docs/strategies.md).
HEAD_RATE = 3e-3
DEFAULT_PRESET = "auto"


def _stage(name: str, unfreeze: str, epochs: int, share: float) -> dict[str, Any]:
    """Return a stage whose learning rate is ``share`` of the head's; a head alone is solved where that can be done."""
    solved = {"solve": "auto"} if unfreeze == "none" else {}
    return {"name": name, "unfreeze": unfreeze, "epochs": epochs, "learning_rate": share, **solved}


# The learning rates are shares of the head's, HEAD_RATE unless the recipe says otherwise.
PRESETS: dict[str, tuple[dict[str, Any], ...]] = {
    # On small sets fine-tuning lowered the validation loss by chance and lost on the test (docs/quality.md): it has to
    # beat the solved head by more than the choice among its epochs explains, and is given up early.
    "auto": (
        _stage("head", "none", 8, 1.0),
        {
            **_stage("top", "last 3 blocks", 8, 0.03),
            "early_stopping": {"patience": 2},
            "min_gain_standard_errors": 2.0,
        },
    ),
    "linear_probe": (_stage("head", "none", 12, 1.0),),
    "head_then_top": (_stage("head", "none", 8, 1.0), _stage("top", "last 3 blocks", 8, 0.1)),
    # Kumar et al. 2022, arXiv 2202.10054: a good head first, then everything at a small learning rate, so that random
    # gradients of a new head don't distort the pretrained features.
    "lp_ft": (_stage("probe", "none", 8, 1.0), _stage("all", "all", 8, 0.03)),
    # Howard and Ruder 2018, arXiv 1801.06146: one block more at a time from the output.
    "gradual": (
        _stage("head", "none", 6, 1.0),
        *(
            _stage(f"last{count}", f"last {count} blocks", 3, share)
            for count, share in ((1, 0.1), (2, 0.05), (3, 0.025), (4, 0.0125))
        ),
    ),
    "full": (_stage("all", "all", 12, 0.1),),
}


class StagesError(ValueError):
    """A key of ``train`` that doesn't fit its stages.

    Args:
        what: What is wrong.
        key: The key of ``train``.
        hint: What to write instead.
    """

    def __init__(self, what: str, *, key: str, hint: str = "") -> None:
        super().__init__(what)
        self.key = key
        self.hint = hint


def expand_stages(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a ``train`` section with its preset, and the keys that shape it, expanded into a list of stages.

    Args:
        section: A raw ``train`` section.

    Raises:
        StagesError: Unknown preset, or ``epochs``, ``learning_rate`` or ``solve`` beside a list of stages.
    """
    section = dict(section)
    stages = section.get("stages", DEFAULT_PRESET)
    if not isinstance(stages, str):
        for key in ("epochs", "learning_rate", "solve"):
            if key in section:
                what = f"`{key}` goes with a preset's name; in a list, each stage has its own {key}"
                raise StagesError(what, key=key, hint=_suggest_stage_keys(stages, key))
        return section
    if stages not in PRESETS:
        guess = suggest_name(stages, PRESETS)
        what = f"unknown preset {stages!r} (presets: {', '.join(PRESETS)})"
        raise StagesError(what, key="stages", hint=guess)
    epochs = section.pop("epochs", None)
    # Whoever names the learning rate of the head wants it trained.
    solve = section.pop("solve", False if "learning_rate" in section else "auto")
    rate = section.pop("learning_rate", HEAD_RATE)
    for key, value in (("epochs", epochs), ("learning_rate", rate), ("solve", solve)):
        if isinstance(value, dict):
            what = f"`{key}` is a search space here, so the preset's stages can't be written out"
            raise StagesError(what, key=key, hint=_suggest_stage_keys(PRESETS[stages], key))
    section["stages"] = [_shape_stage(stage, epochs, rate, solve) for stage in PRESETS[stages]]
    return section


def _suggest_stage_keys(stages: Any, key: str) -> str:
    """Return the keys of a list's stages that do what a key beside it can't."""
    if not isinstance(stages, Sequence) or not stages:
        return ""
    names = [stage.get("name") if isinstance(stage, Mapping) else None for stage in stages]
    listed = [f"train.stages[{index}].{key} ({name})" for index, name in enumerate(names)]
    return f"set {format_list(listed, most=3)}"


def _shape_stage(stage: Mapping[str, Any], epochs: Any, head_rate: Any, solve: Any) -> dict[str, Any]:
    # A value of the wrong type goes through unscaled, so that the schema reports it at its place.
    scalable = isinstance(head_rate, (int, float)) and not isinstance(head_rate, bool)
    # Rounded, because 3e-3 * 0.1 is 0.00030000000000000003, which recipe.yaml would show.
    rate = float(f"{head_rate * stage['learning_rate']:.6g}") if scalable else head_rate
    shaped = {**stage, "epochs": stage["epochs"] if epochs is None else epochs, "learning_rate": rate}
    return shaped | ({"solve": solve} if "solve" in stage else {})

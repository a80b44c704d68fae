"""Findings of a data audit: codes with their default severity, and the finding itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from imagetune.core.text import format_list

Severity = Literal["error", "warning", "note"]
Policy = Literal["error", "warn", "ignore"]

_SEVERITIES: dict[Policy, Severity] = {"error": "error", "warn": "warning", "ignore": "note"}


@dataclass(frozen=True, slots=True)
class Code:
    """Default severity and meaning of a finding's code.

    Attributes:
        severity: The default severity; ``data.audit.fail_on`` turns any code into an error.
        meaning: A noun phrase, for `imagetune data check --codes` and the audit's page.
        policy: The recipe key that sets the severity, "" for codes without one.
    """

    severity: Severity
    meaning: str
    policy: str = ""


CODES: dict[str, Code] = {
    "bad-image": Code("warning", "an image that can't be opened or decoded and is left out", "data.on_bad_image"),
    "corrupt-image": Code("warning", "an image that was decoded despite corruption in its file"),
    "wrong-suffix": Code("note", "a file name suffix that doesn't match the content"),
    "many-frames": Code("note", "an animation or a file of several pages, of which only the first is used"),
    "bit-depth": Code("note", "images with more than 8 bits a channel, and how many of them are used"),
    "mixed-bit-depth": Code("warning", "images that use fewer of their bits than others of the same source"),
    "extra-band": Code("note", "a fourth band that isn't transparency, such as infrared, and is left out"),
    "identical-images": Code("note", "exact copies of a file"),
    "near-duplicates": Code("note", "near-duplicates of an image"),
    "leak": Code("error", "leakage: copies or near-duplicates of an image in two given splits", "data.audit.on_leak"),
    "group-leak": Code("error", "leakage: images of one group in two given splits", "data.audit.on_leak"),
    "conflict": Code("warning", "conflicting labels of exact copies", "data.audit.on_conflict"),
    "near-conflict": Code("warning", "conflicting labels of near-duplicates"),
    "placeholder": Code("warning", "a placeholder drawing in place of several images"),
    "blank-image": Code("warning", "an image of a single flat colour, or nearly so"),
    "too-dark": Code("warning", "a nearly black image in a data set of brighter ones"),
    "too-bright": Code("warning", "an overexposed image in a data set of darker ones"),
    "blurred": Code("warning", "a blurred image in a data set of sharp ones"),
    "odd-size": Code("note", "an outlier in size: far fewer or far more pixels than the other images"),
    "odd-aspect": Code("note", "an outlier in aspect ratio: far longer or narrower than the other images"),
    "tiny-class": Code("warning", "a class with too few images for training or for the test"),
    "no-split": Code("error", "images that can't be split into training, validation and test"),
    "class-imbalance": Code("note", "class imbalance: the largest class has many times the images of the smallest"),
    "lookalike-labels": Code("warning", "labels that differ only in spelling, such as Dog and dog"),
    "shortcut-size": Code("warning", "a shortcut: the image size alone predicts the label"),
    "shortcut-aspect": Code("note", "a shortcut: the aspect ratio alone predicts the label"),
    "shortcut-colour": Code("note", "a shortcut: the mean colour alone predicts the label"),
    "shortcut-file-type": Code("warning", "a shortcut: the file type alone predicts the label"),
    "shortcut-camera": Code("warning", "a shortcut: the camera in the EXIF data alone predicts the label"),
    "shortcut-folder": Code("warning", "a shortcut: the folder alone predicts the label"),
    "split-shift": Code(
        "warning", "distribution shift: given splits differ in size, brightness, file type or the like"
    ),
    "folder-left-out": Code("warning", "a folder of the source that is neither a class nor a split"),
    "stray-image": Code("warning", "an image outside the class folders, which has no label"),
    "not-an-image": Code("note", "a file that is not an image"),
    "own-output": Code("note", "a folder that imagetune wrote, such as that of a run"),
    "link-loop": Code("warning", "a symbolic link to a folder that contains it"),
    "unreadable-folder": Code("warning", "a folder without read permission"),
    "name-not-utf8": Code("warning", "an image whose name is not valid UTF-8"),
    "class-left-out": Code("note", "classes that are not in data.classes"),
    "no-header": Code("note", "a table without a header whose columns can only be path and label"),
    "line-left-out": Code("note", "empty lines and comments of the table"),
    "repeated-row": Code("note", "a repeated row of the table"),
}


@dataclass(frozen=True)
class Finding:
    """Finding of a data audit about any number of images.

    Attributes:
        code: A stable name for scripts, such as ``bad-image``.
        severity: ``error`` stops a fit, ``warning`` should be reviewed, ``note`` is for information.
        title: One line that includes the count.
        explanation: Why it matters, as a clause.
        paths: Every path concerned, never a selection.
        hint: What to do about it, in the imperative.
        groups: The paths again, grouped where they belong together, such as the copies of one image.
        reasons: The reason for each path, where it differs between paths.
        metrics: The numbers behind the title, for scripts.
    """

    code: str
    severity: Severity
    title: str
    explanation: str = ""
    paths: tuple[str, ...] = ()
    hint: str = ""
    groups: tuple[tuple[str, ...], ...] = ()
    reasons: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def name_images(self, *, most: int = 3) -> str:
        """Return the images that have a reason each as text to follow the title: ``: a.jpg (why)``; "" without any."""
        named = [f"{path} ({why})" for path, why in self.reasons.items()]
        return f": {format_list(named, most=most)}" if named else ""

    def to_dict(self) -> dict[str, object]:
        """Return the finding as plain JSON values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "title": self.title,
            "explanation": self.explanation,
            "hint": self.hint,
            "count": len(self.paths),
            "paths": list(self.paths),
            "groups": [list(group) for group in self.groups],
            "reasons": dict(self.reasons),
            "metrics": dict(self.metrics),
        }


def find_severity(policy: Policy) -> Severity:
    """Return the severity for a recipe's ``error | warn | ignore``; ignored findings remain as notes."""
    return _SEVERITIES[policy]

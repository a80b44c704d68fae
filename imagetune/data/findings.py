"""What a look at the data found: a code, a severity and words for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
Policy = Literal["error", "warn", "ignore"]

_SEVERITIES: dict[Policy, Severity] = {"error": "error", "warn": "warning", "ignore": "note"}


@dataclass(frozen=True, slots=True)
class Code:
    """What a finding's code means.

    Attributes:
        severity: The usual one; ``data.audit.fail_on`` makes any an error.
        meaning: One line, for `imagetune data check --codes`.
        policy: The key of the recipe that sets the severity, for codes that have one.
    """

    severity: Severity
    meaning: str
    policy: str = ""


CODES: dict[str, Code] = {
    "bad-image": Code("warning", "can't be opened or decoded; it is left out", "data.on_bad_image"),
    "corrupt-image": Code("warning", "corruption inside an image that the decoder read around"),
    "wrong-suffix": Code("note", "the name's suffix doesn't fit the content"),
    "many-frames": Code("note", "an animation or several pages, of which the first is used"),
    "identical-images": Code("note", "exact copies of one file"),
    "near-duplicates": Code("note", "nearly the same image several times"),
    "leak": Code("error", "the same or nearly the same image in two given splits", "data.audit.on_leak"),
    "group-leak": Code("error", "a group in two given splits", "data.audit.on_leak"),
    "conflict": Code("warning", "the same image under two labels", "data.audit.on_conflict"),
    "near-conflict": Code("warning", "nearly the same image under two labels"),
    "placeholder": Code("warning", "one nearly empty drawing that stands for several images"),
    "blank-image": Code("warning", "one flat colour, or hardly more than that"),
    "too-dark": Code("warning", "nearly black, where the other images are not"),
    "too-bright": Code("warning", "washed out, where the other images are not"),
    "blurred": Code("warning", "without any sharp edge, where the other images have them"),
    "odd-size": Code("note", "far fewer or far more pixels than the other images"),
    "odd-aspect": Code("note", "far longer or narrower than the other images"),
    "tiny-class": Code("warning", "a class with too few images to learn it or to test it"),
    "class-imbalance": Code("note", "the largest class has many times the images of the smallest"),
    "lookalike-labels": Code("warning", "labels that differ only in spelling: Dog and dog"),
    "shortcut-size": Code("warning", "the size of the images alone tells the label"),
    "shortcut-aspect": Code("note", "the shape (width to height) of the images alone tells the label"),
    "shortcut-colour": Code("note", "the mean colour of the images alone tells the label"),
    "shortcut-file-type": Code("warning", "the file type alone tells the label"),
    "shortcut-camera": Code("warning", "the camera's name in the EXIF data alone tells the label"),
    "shortcut-folder": Code("warning", "the folder that the images come from alone tells the label"),
    "split-shift": Code("warning", "the given splits differ in size, brightness, file type or the like"),
    "folder-left-out": Code("warning", "a folder of the source that is neither a class nor a split"),
    "stray-image": Code("warning", "an image beside the class folders, without a label"),
    "not-a-image": Code("note", "a file of another kind"),
    "link-loop": Code("warning", "a link that leads back to a folder above"),
    "unreadable-folder": Code("warning", "a folder that may not be read"),
    "name-not-utf8": Code("warning", "a file name that is no UTF-8 text"),
    "class-left-out": Code("note", "classes that data.classes doesn't name"),
    "repeated-row": Code("note", "a row of the table twice"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found, about any number of images.

    Attributes:
        code: A stable name for scripts, such as ``bad-image``.
        severity: ``error`` stops a fit, ``warning`` should be looked at, ``note`` is for information.
        title: One line with the count in it.
        explanation: Why it matters, or the reason of each path.
        paths: Every path concerned, never a selection.
        hint: What to do about it.
        groups: The paths again where they belong together: the copies of one image, for example.
        reasons: What is wrong with each path, where that differs from one to the next.
        metrics: Numbers behind the words, for scripts.
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


def severity_of(policy: Policy) -> Severity:
    """Return the severity that a recipe's ``error | warn | ignore`` asks for; ignored findings stay as notes."""
    return _SEVERITIES[policy]

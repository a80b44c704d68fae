"""The check of a source as one page with images, for a browser; it needs no network and is under 5 MB.

Each image is embedded at 150 pixels. Images are drawn finding by finding, errors first, until their room is used
up; what is not drawn is counted, and its paths are listed.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from imagetune.core.files import write_text
from imagetune.core.text import format_count
from imagetune.data.findings import CODES, Finding
from imagetune.data.loading.decode import load_image
from imagetune.errors import BadImageError
from imagetune.recipe.data import ImageSettings

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.data.sources.catalog import Catalog
    from imagetune.recipe.data import DataConfig

SIDE = 150
JPEG_QUALITY = 75
# The page stays under 5 MB: images take 3 of them, paths at most a quarter of one.
IMAGE_BYTES = 3 << 20
PATH_BYTES = 1 << 18
MAX_IMAGES, MAX_FAMILIES, MAX_GROUP_SHARE, MAX_PATHS, MAX_CLASSES = 24, 16, 6, 200, 200

_ORDER = {"error": 0, "warning": 1, "note": 2}
# Their paths are folders, links and other files: there is nothing to draw.
_WITHOUT_IMAGES = ("link-loop", "unreadable-folder", "not-an-image", "name-not-utf8")


@dataclass(frozen=True)
class Image:
    """An image of the page.

    Attributes:
        path: Relative to the source where below it.
        note: What is said of it: its label, its split, what is wrong.
        image: A ``data:`` address, None where it can't be shown.
        problem: Why it can't be shown.
    """

    path: str
    note: str
    image: str | None
    problem: str


def write_audit_page(catalog: Catalog, audit: Audit, config: DataConfig, path: Path) -> None:
    """Write the page.

    Args:
        catalog: All images of the source.
        audit: What the check of them found.
        config: ``background`` and ``max_pixels`` of the images, and the source's name.
        path: The file; one that is there is replaced.

    Raises:
        ResourceError: It can't be written.
    """
    # A path with bytes that are no UTF-8 is still a path; on the page it gets question marks.
    write_text(path, render_audit_page(catalog, audit, config).encode("utf-8", "replace").decode("utf-8"))


def render_audit_page(catalog: Catalog, audit: Audit, config: DataConfig) -> str:
    """Return the page as HTML; see `write_audit_page`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("imagetune.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawer = _Drawer(catalog, config)
    findings = sorted(audit.findings, key=lambda finding: _ORDER[finding.severity])
    usable = zip(catalog.records, audit.facts, strict=True)
    counts = catalog.rule.counts(record.label for record, fact in usable if fact.error is None)
    classes = sorted(catalog.labels, key=lambda label: (-counts[label], label))
    most = max([1, *counts.values()])
    return environment.get_template("audit.html.jinja").render(
        name=Path(config.source).name or config.source,
        facts=list(_facts(catalog, audit, config)),
        verdict=_verdict(findings),
        findings=[drawer.finding(finding) for finding in findings],
        allowed=audit.allowed,
        classes_title="Images" if catalog.rule.task == "regression" else "Classes",
        classes=[
            {"label": label, "count": f"{counts[label]:,}", "percent": f"{100 * counts[label] / most:.1f}"}
            for label in classes[:MAX_CLASSES]
        ],
        classes_left=max(0, len(classes) - MAX_CLASSES),
    )


def _facts(catalog: Catalog, audit: Audit, config: DataConfig) -> Iterator[tuple[str, str]]:
    bad = len(audit.bad_paths)
    yield "source", config.source
    yield "images", f"{len(audit.facts):,}"
    yield "usable", f"{sum(fact.error is None for fact in audit.facts):,}"
    if bad:
        yield "can't be used", f"{bad:,}"
    if catalog.rule.task != "regression":
        yield "classes", f"{len(catalog.labels):,}"


def _verdict(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _ORDER}
    if not findings:
        return "Nothing was found"
    told = [format_count(count, severity) for severity, count in counts.items() if count]
    words = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    return f"{words}: {'errors stop a training' if counts['error'] else 'nothing that stops a training'}"


class _Drawer:
    """Makes views of findings, with images as long as there is room for them."""

    def __init__(self, catalog: Catalog, config: DataConfig) -> None:
        self._start = f"{catalog.root}{os.sep}"
        self._labels = {record.path: catalog.rule.told(record.label) for record in catalog.records}
        self._config = config
        self._frame = ImageSettings(height=SIDE, width=SIDE, background=config.background)
        self._images: dict[str, tuple[str | None, str]] = {}
        self._image_room, self._path_room = IMAGE_BYTES, PATH_BYTES

    def finding(self, finding: Finding) -> dict[str, object]:
        """Return what the template draws of a finding."""
        families = list(self._families(finding))
        shown = () if families or finding.code in _WITHOUT_IMAGES else finding.paths[:MAX_IMAGES]
        images = list(self._drawn(shown, finding))
        paths = list(self._listed(finding))
        code = CODES.get(finding.code)
        return {
            "code": finding.code,
            "severity": finding.severity,
            "title": finding.title,
            "meaning": _sentence(code.meaning if code else finding.title),
            "explanation": _sentence(finding.explanation),
            "hint": finding.hint,
            "families": families,
            "images": images,
            "left": _left(finding, families, len(images)),
            "paths": paths,
            "paths_title": format_count(len(finding.paths), "path"),
            "paths_left": len(finding.paths) - len(paths),
        }

    def _families(self, finding: Finding) -> Iterator[dict[str, object]]:
        for group in finding.groups[:MAX_FAMILIES]:
            images = list(self._drawn(group[:MAX_GROUP_SHARE], finding))
            if not images:
                return
            yield {"count": len(group), "images": images, "more": len(group) - len(images)}

    def _drawn(self, paths: Sequence[str], finding: Finding) -> Iterator[Image]:
        for path in paths:
            if self._image_room <= 0:
                return
            image, problem = self._thumbnail(path)
            self._image_room -= len(image or problem)
            note = finding.reasons.get(path) or self._labels.get(path, "")
            yield Image(self._told(path), "" if note == problem else note, image, problem)

    def _thumbnail(self, path: str) -> tuple[str | None, str]:
        if path not in self._images:
            try:
                image = load_image(path, self._frame, max_pixels=self._config.max_pixels)
            except BadImageError as error:
                self._images[path] = None, error.what
            else:
                quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
                encoded = cv2.imencode(".jpg", image[:, :, ::-1], quality)[1].tobytes()
                self._images[path] = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode('ascii')}", ""
        return self._images[path]

    def _listed(self, finding: Finding) -> Iterator[tuple[str, str]]:
        for path in finding.paths[:MAX_PATHS]:
            told, reason = self._told(path), finding.reasons.get(path, "")
            self._path_room -= len(told) + len(reason)
            if self._path_room < 0:
                return
            yield told, reason

    def _told(self, path: str) -> str:
        return path.removeprefix(self._start)


def _left(finding: Finding, families: Sequence[dict[str, object]], images: int) -> str:
    if finding.groups:
        left = len(finding.groups) - len(families)
        return f"{format_count(left, 'further family', 'further families')}" if left else ""
    left = 0 if finding.code in _WITHOUT_IMAGES else len(finding.paths) - images
    return format_count(left, "further image") if left else ""


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]

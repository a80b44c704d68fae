"""The check of a data source as one HTML page with images, which needs no network and is under 5 MB.

Each image is embedded at 150 pixels. Images are drawn finding by finding, errors first, until their room is used
up; what is not drawn is counted, and its paths are listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.text import format_count
from imagetune.data.findings import CODES, Finding
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.thumbnails import make_thumbnail

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.data.sources.catalog import Catalog
    from imagetune.recipe.sections.data import DataConfig

SIDE = 150
# The page stays under 5 MB: images take 3 of them, paths at most a quarter of one.
IMAGE_BYTES = 3 << 20
PATH_BYTES = 1 << 18
MAX_IMAGES, MAX_GROUPS, MAX_GROUP_IMAGES, MAX_PATHS, MAX_CLASSES = 24, 16, 6, 200, 200

_ORDER = {"error": 0, "warning": 1, "note": 2}
# Findings whose paths are folders, links and other files: there is no image to show.
_WITHOUT_IMAGES = ("link-loop", "unreadable-folder", "not-an-image", "name-not-utf8")


@dataclass(frozen=True)
class Image:
    """An image of the page with its caption.

    Attributes:
        path: The file, relative to the source where below it.
        note: The caption: its label, its split, what is wrong with it.
        image: The thumbnail as a ``data:`` address; None where the file can't be decoded.
        problem: Why the file can't be decoded; empty where it can.
    """

    path: str
    note: str
    image: str | None
    problem: str


def write_audit_page(catalog: Catalog, audit: Audit, config: DataConfig, path: Path) -> None:
    """Write the page of a source's check.

    Args:
        catalog: All images of the source.
        audit: What the check of them found.
        config: ``background`` and ``max_pixels`` of the images, and the source's name.
        path: The file; one that is there is replaced.

    Raises:
        ResourceError: It can't be written.
    """
    write_page(path, render_audit_page(catalog, audit, config))


def render_audit_page(catalog: Catalog, audit: Audit, config: DataConfig) -> str:
    """Return the page of a source's check as HTML; the arguments are those of `write_audit_page`."""
    views = _FindingViews(catalog, config)
    findings = sorted(audit.findings, key=lambda finding: _ORDER[finding.severity])
    # Files that can't be decoded are in no class's count: nothing can be learned from them.
    usable = zip(catalog.records, audit.statistics, strict=True)
    counts = catalog.rule.counts(record.label for record, fact in usable if fact.error is None)
    classes = sorted(catalog.labels, key=lambda label: (-counts[label], label))
    # Bars are shares of the largest class; 1 where no image can be used.
    most = max([1, *counts.values()])
    return (
        html_environment()
        .get_template("audit.html.jinja")
        .render(
            name=Path(config.source).name or config.source,
            facts=list(_list_facts(catalog, audit, config)),
            verdict=_describe_verdict(findings),
            findings=[views.build(finding) for finding in findings],
            allowed=audit.allowed,
            classes_title="Images" if catalog.rule.task == "regression" else "Classes",
            classes=[
                {"label": label, "count": f"{counts[label]:,}", "percent": f"{100 * counts[label] / most:.1f}"}
                for label in classes[:MAX_CLASSES]
            ],
            classes_left=max(0, len(classes) - MAX_CLASSES),
        )
    )


def _list_facts(catalog: Catalog, audit: Audit, config: DataConfig) -> Iterator[tuple[str, str]]:
    bad = len(audit.bad_paths)
    yield "source", config.source
    yield "images", f"{len(audit.statistics):,}"
    yield "usable", f"{sum(fact.error is None for fact in audit.statistics):,}"
    if bad:
        yield "unusable", f"{bad:,}"
    if catalog.rule.task != "regression":
        yield "classes", f"{len(catalog.labels):,}"


def _describe_verdict(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _ORDER}
    if not findings:
        return "No findings"
    parts = [format_count(count, severity) for severity, count in counts.items() if count]
    words = " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
    return f"{words}: {'errors stop a training' if counts['error'] else 'nothing stops a training'}"


class _FindingViews:
    """A builder of the findings' views, with images as long as the page has room for them."""

    def __init__(self, catalog: Catalog, config: DataConfig) -> None:
        self._start = f"{catalog.root}{os.sep}"
        self._labels = {record.path: catalog.rule.describe(record.label) for record in catalog.records}
        self._config = config
        self._images: dict[str, tuple[str | None, str]] = {}
        self._image_room, self._path_room = IMAGE_BYTES, PATH_BYTES

    def build(self, finding: Finding) -> dict[str, object]:
        """Return what the template draws of a finding."""
        groups = list(self._build_groups(finding))
        shown = () if groups or finding.code in _WITHOUT_IMAGES else finding.paths[:MAX_IMAGES]
        images = list(self._build_images(shown, finding))
        paths = list(self._list_paths(finding))
        code = CODES.get(finding.code)
        return {
            "code": finding.code,
            "severity": finding.severity,
            "title": _capitalize(finding.title),
            "meaning": _capitalize(code.meaning if code else finding.title),
            "explanation": _capitalize(finding.explanation),
            "hint": _capitalize(finding.hint),
            "groups": groups,
            "images": images,
            "left": _describe_left(finding, groups, len(images)),
            "paths": paths,
            "paths_title": format_count(len(finding.paths), "path"),
            "paths_left": len(finding.paths) - len(paths),
        }

    def _build_groups(self, finding: Finding) -> Iterator[dict[str, object]]:
        for group in finding.groups[:MAX_GROUPS]:
            images = list(self._build_images(group[:MAX_GROUP_IMAGES], finding))
            # The room is used up: no later group would get an image.
            if not images:
                return
            yield {"count": len(group), "images": images, "more": len(group) - len(images)}

    def _build_images(self, paths: Sequence[str], finding: Finding) -> Iterator[Image]:
        for path in paths:
            if self._image_room <= 0:
                return
            image, problem = self._thumbnail(path)
            # The text on the page counts, which is a third longer than the JPEG's bytes.
            self._image_room -= len(image or problem)
            note = finding.reasons.get(path) or self._labels.get(path, "")
            yield Image(self._shorten(path), "" if note == problem else note, image, problem)

    def _thumbnail(self, path: str) -> tuple[str | None, str]:
        # An image may be in several findings, but is decoded once.
        if path not in self._images:
            self._images[path] = make_thumbnail(path, self._config, pixels=SIDE)
        return self._images[path]

    def _list_paths(self, finding: Finding) -> Iterator[tuple[str, str]]:
        for path in finding.paths[:MAX_PATHS]:
            shown, reason = self._shorten(path), finding.reasons.get(path, "")
            self._path_room -= len(shown) + len(reason)
            if self._path_room < 0:
                return
            yield shown, reason

    def _shorten(self, path: str) -> str:
        return path.removeprefix(self._start)


def _describe_left(finding: Finding, groups: Sequence[dict[str, object]], images: int) -> str:
    if finding.groups:
        left = len(finding.groups) - len(groups)
        return format_count(left, "further group") if left else ""
    left = 0 if finding.code in _WITHOUT_IMAGES else len(finding.paths) - images
    return format_count(left, "further image") if left else ""


def _capitalize(words: str) -> str:
    return words[:1].upper() + words[1:]

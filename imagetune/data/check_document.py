"""Audit document: the JSON that ``imagetune data check --json`` prints and a run keeps as ``audit.json``."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from imagetune.data.audit.audit import Audit
from imagetune.data.sources.catalog import Catalog
from imagetune.data.splits.splits import Splits


def build_audit_document(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> dict[str, object]:
    """Return an audit as plain JSON values, with every path that a finding concerns.

    The keys: ``source``; ``images`` and ``usable`` (counts); ``bad`` (a list of ``path`` and ``error``); ``classes``
    (count of usable images by label); ``splits`` (count by split and label, null when not split); ``width`` and
    ``height`` in pixels, ``brightness`` and ``sharpness`` as in `Appearance` (each ``min``, ``median``, ``max``);
    ``file_types`` (count by type); ``shortcuts`` (how well size, aspect ratio and so on predict the label, see
    `ShortcutScore`); ``findings`` (see `Finding.to_dict`); ``allowed`` (the findings whose codes are in
    data.audit.allow); ``ok`` (whether no finding is an error).
    """
    good = [image for image in audit.statistics if image.error is None]
    appearances = [image.appearance for image in good if image.appearance is not None]
    usable = zip(catalog.records, audit.statistics, strict=True)
    labels = catalog.rule.counts(record.label for record, image in usable if image.error is None)
    bad = {image.path: image.error for image in audit.statistics if image.error is not None}
    return {
        "source": str(catalog.root),
        "ok": all(finding.severity != "error" for finding in audit.findings),
        "images": len(audit.statistics),
        "usable": len(good),
        "bad": [{"path": path, "error": error} for path, error in bad.items()],
        "classes": {label: labels[label] for label in catalog.labels},
        "splits": splits.counts() if splits else None,
        "width": _spread([image.width for image in good]),
        "height": _spread([image.height for image in good]),
        "brightness": _spread([appearance.brightness for appearance in appearances]),
        "sharpness": _spread([appearance.sharpness for appearance in appearances]),
        "file_types": dict(Counter(image.kind for image in good)),
        "shortcuts": {code: asdict(score) for code, score in audit.shortcuts.items()},
        "findings": [finding.to_dict() for finding in audit.findings],
        "allowed": [finding.to_dict() for finding in audit.allowed],
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}

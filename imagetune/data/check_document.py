"""The check of a source as the JSON document that ``imagetune data check --json`` prints."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from imagetune.data.audit.audit import Audit
from imagetune.data.sources.catalog import Catalog
from imagetune.data.splits.splits import Splits


def audit_document(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> dict[str, object]:
    """Return the check as plain JSON values; every path is in it.

    The keys: ``source``; ``images`` and ``usable`` (counts); ``bad`` (a list of ``path`` and ``error``); ``classes``
    (count of usable images by label); ``splits`` (count by split and label, null when not split); ``width`` and
    ``height`` in pixels, ``brightness`` and ``sharpness`` as in `Appearance` (each ``min``, ``median``, ``max``);
    ``file_types`` (count by type); ``shortcuts`` (how well size, shape and so on tell the label, see `Told`);
    ``findings`` (see `Finding.to_dict`); ``allowed`` (the findings that data.audit.allow names); ``ok`` (no error among
    the findings).
    """
    good = [fact for fact in audit.facts if fact.error is None]
    looks = [fact.appearance for fact in good if fact.appearance is not None]
    usable = zip(catalog.records, audit.facts, strict=True)
    labels = catalog.rule.counts(record.label for record, fact in usable if fact.error is None)
    bad = {fact.path: fact.error for fact in audit.facts if fact.error is not None}
    return {
        "source": str(catalog.root),
        "ok": all(finding.severity != "error" for finding in audit.findings),
        "images": len(audit.facts),
        "usable": len(good),
        "bad": [{"path": path, "error": error} for path, error in bad.items()],
        "classes": {label: labels[label] for label in catalog.labels},
        "splits": splits.counts() if splits else None,
        "width": _spread([fact.width for fact in good]),
        "height": _spread([fact.height for fact in good]),
        "brightness": _spread([look.brightness for look in looks]),
        "sharpness": _spread([look.sharpness for look in looks]),
        "file_types": dict(Counter(fact.kind for fact in good)),
        "shortcuts": {code: asdict(told) for code, told in audit.told.items()},
        "findings": [finding.to_dict() for finding in audit.findings],
        "allowed": [finding.to_dict() for finding in audit.allowed],
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}

"""The check of a source as ``imagetune data check`` tells it: a JSON document, or lines of text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from imagetune.data.audit import Audit
from imagetune.data.catalog import Catalog
from imagetune.data.findings import Finding, counted
from imagetune.data.splits import Splits

_SHOWN = 5


def audit_document(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> dict[str, object]:
    """Return the check as plain JSON values; every path is in it.

    The keys: ``source``; ``pictures`` and ``usable`` (counts); ``bad`` (a list of ``path`` and ``error``); ``classes``
    (count of usable pictures by label); ``splits`` (count by split and label, null when not split); ``width`` and
    ``height`` (``min``, ``median``, ``max`` in pixels); ``findings`` (see `Finding.to_dict`); ``ok`` (no error among
    them).
    """
    good = [fact for fact in audit.facts if fact.error is None]
    usable = zip(catalog.records, audit.facts, strict=True)
    labels = catalog.rule.counts(record.label for record, fact in usable if fact.error is None)
    bad = {fact.path: fact.error for fact in audit.facts if fact.error is not None}
    return {
        "source": str(catalog.root),
        "ok": all(finding.severity != "error" for finding in audit.findings),
        "pictures": len(audit.facts),
        "usable": len(good),
        "bad": [{"path": path, "error": error} for path, error in bad.items()],
        "classes": {label: labels[label] for label in catalog.labels},
        "splits": splits.counts() if splits else None,
        "width": _spread([fact.width for fact in good]),
        "height": _spread([fact.height for fact in good]),
        "findings": [finding.to_dict() for finding in audit.findings],
    }


def audit_lines(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> list[str]:
    """Return the check as lines for a screen: a table of the classes, then each finding with its first paths."""
    bad = len(audit.bad_paths)
    what = catalog.labels[0] if catalog.rule.task == "regression" else counted(len(catalog.labels), "class", "classes")
    size = f"{counted(len(audit.facts), 'picture')}, {what}"
    lines = [f"{catalog.root}: {size}" + (f", {bad:,} can't be used" if bad else "")]
    lines += list(_class_table(catalog, audit, splits))
    lines += [f"  {note}" for note in (splits.notes if splits else ())]
    for finding in audit.findings:
        lines += ["", *_finding_lines(finding, catalog.root)]
    return lines


def _spread(sides: list[int]) -> dict[str, float] | None:
    if not sides:
        return None
    return {"min": min(sides), "median": statistics.median(sides), "max": max(sides)}


def _class_table(catalog: Catalog, audit: Audit, splits: Splits | None) -> Iterator[str]:
    width = max(5, *(len(label) for label in catalog.labels))
    if splits:
        counts = splits.counts()
        yield f"  {'class':<{width}}  {'train':>7}  {'val':>7}  {'test':>7}"
        for name in splits.class_names:
            yield f"  {name:<{width}}" + "".join(f"  {counts[side][name]:>7,}" for side in ("train", "val", "test"))
        totals = {side: sum(found.values()) for side, found in counts.items()}
        yield f"  {'all':<{width}}" + "".join(f"  {totals[side]:>7,}" for side in ("train", "val", "test"))
        return
    usable = zip(catalog.records, audit.facts, strict=True)
    labels = catalog.rule.counts(record.label for record, fact in usable if fact.error is None)
    for label in catalog.labels:
        yield f"  {label:<{width}}  {labels[label]:>7,}"


def _finding_lines(finding: Finding, root: Path) -> Iterator[str]:
    yield f"{finding.severity} [{finding.code}] {finding.title}"
    for words in (finding.explanation, finding.hint):
        if words:
            yield f"  {words}"
    if finding.groups:
        shown = [", ".join(_told(path, root, finding) for path in group[:_SHOWN]) for group in finding.groups[:_SHOWN]]
        left = len(finding.groups) - len(shown)
    else:
        shown = [_told(path, root, finding) for path in finding.paths[:_SHOWN]]
        left = len(finding.paths) - len(shown)
    yield from (f"    {words}" for words in shown)
    if left > 0:
        yield f"    and {left:,} more (--json names them all)"


def _told(path: str, root: Path, finding: Finding) -> str:
    shown = path.removeprefix(f"{root}/")
    return f"{shown} ({finding.reasons[path]})" if path in finding.reasons else shown

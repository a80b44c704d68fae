"""The check of a source as ``imagetune data check`` tells it: a JSON document, or lines of text."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from imagetune.core.text import format_count
from imagetune.data.audit import Audit
from imagetune.data.findings import CODES, Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.splits import Splits

_SHOWN = 5


def audit_document(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> dict[str, object]:
    """Return the check as plain JSON values; every path is in it.

    The keys: ``source``; ``pictures`` and ``usable`` (counts); ``bad`` (a list of ``path`` and ``error``); ``classes``
    (count of usable pictures by label); ``splits`` (count by split and label, null when not split); ``width`` and
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
        "pictures": len(audit.facts),
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


def audit_lines(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> list[str]:
    """Return the check as lines for a screen: a table of the classes, then each finding with its first paths."""
    bad = len(audit.bad_paths)
    what = (
        catalog.labels[0]
        if catalog.rule.task == "regression"
        else format_count(len(catalog.labels), "class", "classes")
    )
    size = f"{format_count(len(audit.facts), 'picture')}, {what}"
    lines = [f"{catalog.root}: {size}" + (f", {bad:,} can't be used" if bad else "")]
    lines += list(_class_table(catalog, audit, splits))
    lines += [f"  {note}" for note in (splits.notes if splits else ())]
    for finding in audit.findings:
        lines += ["", *_finding_lines(finding, catalog.root)]
    return lines


def code_lines() -> list[str]:
    """Return every code that a finding may have, with its usual severity and its meaning."""
    width = max(map(len, CODES))
    settings = {code: f" ({one.policy} sets the severity)" if one.policy else "" for code, one in CODES.items()}
    return [f"{code:<{width}}  {one.severity:<7}  {one.meaning}{settings[code]}" for code, one in CODES.items()]


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


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

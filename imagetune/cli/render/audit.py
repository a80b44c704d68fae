"""The audit of a source as lines of text: a table of the classes, then the findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.cli.render.tables import format_table
from imagetune.core.text import format_count
from imagetune.data.audit.audit import Audit
from imagetune.data.findings import CODES, Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.splits.splits import Splits

if TYPE_CHECKING:
    from imagetune.commands.data import CleanedSource

# Groups of a finding, and paths of a group: enough to recognise the problem, and --json lists all.
_MAX_SHOWN = 5
_SIDES = ("train", "val", "test")


def format_audit(catalog: Catalog, audit: Audit, splits: Splits | None = None) -> list[str]:
    """Return a table of the images of each class, then each finding with its first paths.

    Args:
        catalog: The images of the source.
        audit: The findings.
        splits: The images of each split, where the source was split; else each class has one count.
    """
    bad = len(audit.bad_paths)
    what = (
        catalog.labels[0]
        if catalog.rule.task == "regression"
        else format_count(len(catalog.labels), "class", "classes")
    )
    size = f"{format_count(len(audit.statistics), 'image')}, {what}"
    lines = [f"{catalog.root}: {size}" + (f", {bad:,} can't be used" if bad else "")]
    lines += format_table(_split_rows(splits) if splits else _class_rows(catalog, audit))
    lines += [f"  {note}" for note in (splits.notes if splits else ())]
    for finding in audit.findings:
        lines += ["", *_finding_lines(finding, catalog.root)]
    return lines


def format_cleaned_source(fixed: CleanedSource) -> list[str]:
    """Return the files of a cleaned source, and the number of its changes."""
    return [
        f"{fixed.cleaned}: {'; '.join(fixed.cleaning.lines())}",
        f"{fixed.changes}: what was left out or moved, and why",
    ]


def format_codes() -> list[str]:
    """Return every code of findings, with its default severity and its meaning."""
    settings = {code: f" ({one.policy} sets the severity)" if one.policy else "" for code, one in CODES.items()}
    rows = [(code, one.severity, one.meaning + settings[code]) for code, one in CODES.items()]
    return format_table(rows, align="<<<", indent=0)


def _split_rows(splits: Splits) -> list[tuple[str, ...]]:
    counts = splits.counts()
    rows = [(name, *(f"{counts[side][name]:,}" for side in _SIDES)) for name in splits.class_names]
    return [("class", *_SIDES), *rows, ("all", *(f"{sum(counts[side].values()):,}" for side in _SIDES))]


def _class_rows(catalog: Catalog, audit: Audit) -> list[tuple[str, ...]]:
    # Images that can't be read aren't counted, as none of them would be trained on.
    usable = zip(catalog.records, audit.statistics, strict=True)
    counts = catalog.rule.counts(record.label for record, fact in usable if fact.error is None)
    return [(label, f"{counts[label]:,}") for label in catalog.labels]


def _finding_lines(finding: Finding, root: Path) -> Iterator[str]:
    yield f"{finding.severity} [{finding.code}] {finding.title}"
    yield from (f"  {text}" for text in (finding.explanation, finding.hint) if text)
    groups = finding.groups or tuple((path,) for path in finding.paths)
    for group in groups[:_MAX_SHOWN]:
        yield f"    {', '.join(_path_with_reason(path, root, finding) for path in group[:_MAX_SHOWN])}"
    if len(groups) > _MAX_SHOWN:
        yield f"    and {len(groups) - _MAX_SHOWN:,} more (--json names them all)"


def _path_with_reason(path: str, root: Path, finding: Finding) -> str:
    # The root is on the first line, and would fill every other one.
    shown = path.removeprefix(f"{root}/")
    return f"{shown} ({finding.reasons[path]})" if path in finding.reasons else shown

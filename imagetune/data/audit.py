"""The check of the pictures before anything is trained: what can't be used, what leaks, what contradicts itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagetune.data.catalog import Catalog, Record
from imagetune.data.facts import Inspection, PictureFacts
from imagetune.data.families import components, equal_pairs, members
from imagetune.data.findings import Finding, Severity, counted, severity_of, shortened
from imagetune.data.inspection import inspect_pictures
from imagetune.data.perceptual import near_pairs
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.data import DataConfig

__all__ = ["Audit", "Finding", "PictureFacts", "audit_catalog", "enforce_audit"]

_NOTES: dict[str, tuple[Severity, str, str, str]] = {
    "corrupt-picture": (
        "warning",
        "{count} with corruption inside, which the decoder read around",
        "parts of the picture may be grey or shifted; it is used as it is",
        "look at it, and restore it from the original if it is damaged",
    ),
    "wrong-suffix": (
        "note",
        "{count} with a suffix that does not fit the content",
        "read by content, so nothing is lost",
        "",
    ),
    "many-frames": ("note", "{count} with several frames or pages", "only the first is used", ""),
}


@dataclass(frozen=True)
class Audit:
    """What one look at every picture told.

    Attributes:
        facts: One for each record of the catalog, in its order.
        findings: Those of the catalog first, then those of the pictures.
        families: For each record, the first record that is the same picture or nearly so; itself when it is alone.
    """

    facts: tuple[PictureFacts, ...]
    findings: tuple[Finding, ...]
    families: tuple[int, ...]

    @property
    def bad_paths(self) -> tuple[str, ...]:
        """The pictures that can't be used."""
        return tuple(dict.fromkeys(fact.path for fact in self.facts if fact.error is not None))

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each picture by path; empty for one that can't be read."""
        return {fact.path: fact.sha256 for fact in self.facts}


def audit_catalog(catalog: Catalog, config: DataConfig) -> Audit:
    """Open every picture once; one that has not changed since an earlier audit is not opened again.

    Args:
        catalog: What `read_catalog` returned.
        config: ``audit``, ``on_bad_picture``, ``max_pixels`` and ``background`` are used; with ``cache: off`` nothing
            is taken from earlier audits or kept for later ones.

    Returns:
        Facts, findings and families. Findings with severity ``error`` are not raised here; see `enforce_audit`.
    """
    near = config.audit.near_duplicates
    paths = list(dict.fromkeys(record.path for record in catalog.records))
    inspected = inspect_pictures(
        paths, background=config.background, max_pixels=config.max_pixels, look=near, keep=config.cache != "off"
    )
    position = {path: index for index, path in enumerate(paths)}
    where = [position[record.path] for record in catalog.records]
    facts = tuple(inspected[index].facts for index in where)
    copies = components(len(paths), equal_pairs([one.facts.sha256 or None for one in inspected]))
    alike = components(len(paths), [*enumerate(copies), *(_near(inspected) if near else ())])
    findings = (
        *catalog.findings,
        *_bad_pictures(facts, config),
        *_odd_pictures(facts),
        *_conflicts(catalog.records, [copies[index] for index in where], config),
        *_leaks(catalog.records, facts, [alike[index] for index in where], config),
        *_families(paths, inspected, copies, alike),
    )
    first = {root: index for index, root in reversed(list(enumerate(alike[index] for index in where)))}
    return Audit(facts, findings, tuple(first[alike[index]] for index in where))


def enforce_audit(audit: Audit) -> None:
    """Stop at findings that the recipe calls errors.

    Raises:
        DataError: The first of them, with the number of the others.
    """
    errors = [finding for finding in audit.findings if finding.severity == "error"]
    if not errors:
        return
    first = errors[0]
    shown = ", ".join(f"{path} ({first.reasons[path]})" if path in first.reasons else path for path in first.paths[:3])
    more = f" and {len(first.paths) - 3:,} more" if len(first.paths) > 3 else ""
    others = f"; also: {'; '.join(finding.title for finding in errors[1:])}" if errors[1:] else ""
    raise DataError(f"{first.title}: {shown}{more}{others}", hint=first.hint)


def _near(inspected: list[Inspection]) -> Iterator[tuple[int, int]]:
    seen = [index for index, one in enumerate(inspected) if one.facts.perceptual_hash is not None]
    hashes = [inspected[index].facts.perceptual_hash or 0 for index in seen]
    thumbnails = [inspected[index].thumbnail for index in seen]
    ratios = [inspected[index].ratio for index in seen]
    for one, other in near_pairs(hashes, thumbnails, ratios):
        yield seen[one], seen[other]


def _bad_pictures(facts: Iterable[PictureFacts], config: DataConfig) -> Iterator[Finding]:
    bad = {fact.path: fact.error for fact in facts if fact.error is not None}
    if bad:
        stops = config.on_bad_picture == "error"
        yield Finding(
            "bad-picture",
            "error" if stops else "warning",
            f"{counted(len(bad), 'picture')} can't be used",
            "" if stops else "left out by on_bad_picture: skip",
            tuple(bad),
            "repair or remove it, or set data.on_bad_picture: skip" if stops else "repair or remove it",
            reasons=bad,
        )


def _odd_pictures(facts: Iterable[PictureFacts]) -> Iterator[Finding]:
    reasons: dict[str, dict[str, str]] = {}
    for fact in facts:
        for code, text in fact.notes:
            if fact.error is None:
                reasons.setdefault(code, {})[fact.path] = text
    for code, (severity, title, explanation, hint) in _NOTES.items():
        if found := reasons.get(code):
            words = title.format(count=counted(len(found), "picture"))
            yield Finding(code, severity, words, explanation, tuple(found), hint, reasons=found)


def _conflicts(records: tuple[Record, ...], copies: list[int], config: DataConfig) -> Iterator[Finding]:
    groups = [group for group in members(copies) if len({records[index].label for index in group}) > 1]
    if groups:
        reasons: dict[str, str] = {}
        for index in (index for group in groups for index in group):
            path, label = records[index].path, records[index].label
            reasons[path] = f"{reasons[path]}, {label}" if path in reasons else label
        yield Finding(
            "conflict",
            severity_of(config.audit.on_conflict),
            f"{counted(len(groups), 'picture')} under more than one label",
            "no model can be right about it",
            tuple(reasons),
            "keep the right copy and remove the others",
            tuple(_paths(records, group) for group in groups),
            reasons,
        )


def _leaks(
    records: tuple[Record, ...], facts: tuple[PictureFacts, ...], alike: list[int], config: DataConfig
) -> Iterator[Finding]:
    severity = severity_of(config.audit.on_leak)
    good = [index for index, fact in enumerate(facts) if fact.error is None]
    groups = _across([[good[at] for at in group] for group in members([alike[index] for index in good])], records)
    if groups:
        pairs = Counter(" and ".join(sorted({str(records[index].split) for index in group})) for group in groups)
        between = ", ".join(f"{count:,} between {splits}" for splits, count in pairs.items())
        yield _leak(
            "leak",
            f"{counted(len(groups), 'picture')} in more than one split, the same or nearly so ({between})",
            groups,
            records,
            severity,
        )
    named = [index for index in good if records[index].group is not None]
    roots = components(len(named), equal_pairs([records[index].group for index in named]))
    groups = _across([[named[at] for at in group] for group in members(roots)], records)
    if groups:
        names = shortened(str(records[group[0]].group) for group in groups)
        title = f"{counted(len(groups), 'group')} in more than one split: {names}"
        yield _leak("group-leak", title, groups, records, severity)


def _across(groups: list[list[int]], records: tuple[Record, ...]) -> list[list[int]]:
    """Keep the groups that lie in two splits or more; a picture without a split is not in any."""
    return [group for group in groups if len({records[index].split for index in group} - {None}) > 1]


def _leak(code: str, title: str, groups: list[list[int]], records: tuple[Record, ...], severity: Severity) -> Finding:
    return Finding(
        code,
        severity,
        title,
        "test figures would be too good: the model has seen the picture",
        tuple(dict.fromkeys(records[index].path for group in groups for index in group)),
        "keep each on one side, or set data.audit.on_leak: warn",
        tuple(_paths(records, group) for group in groups),
        {records[index].path: str(records[index].split) for group in groups for index in group},
    )


def _families(paths: list[str], inspected: list[Inspection], copies: list[int], alike: list[int]) -> Iterator[Finding]:
    readable = [index for index, one in enumerate(inspected) if one.facts.error is None]
    for code, roots, words in (
        ("identical-pictures", copies, "{families} of exact copies ({count})"),
        ("near-duplicates", alike, "{families} of nearly identical pictures ({count})"),
    ):
        families = [group for group in members([roots[index] for index in readable]) if len(group) > 1]
        groups = tuple(tuple(paths[readable[at]] for at in group) for group in families)
        if code == "near-duplicates":
            more = [len({copies[readable[at]] for at in group}) > 1 for group in families]
            groups = tuple(group for group, kept in zip(groups, more, strict=True) if kept)
        if groups:
            count = counted(sum(map(len, groups)), "picture")
            title = words.format(families=counted(len(groups), "family", "families"), count=count)
            together = tuple(path for group in groups for path in group)
            explanation = "each family is kept on one side of a split that is made here"
            yield Finding(code, "note", title, explanation, together, groups=groups)


def _paths(records: tuple[Record, ...], group: list[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(records[index].path for index in group))

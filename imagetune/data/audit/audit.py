"""The check of the images before anything is trained: what can't be used, what leaks, what contradicts itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagetune.core.text import format_count, format_list
from imagetune.data.audit.class_sizes import class_sizes
from imagetune.data.audit.image_statistics import ImageFacts, Inspection
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.audit.outliers import odd_images, placeholders
from imagetune.data.audit.shift import split_shift
from imagetune.data.audit.shortcuts import Told, shortcuts, tell_labels
from imagetune.data.duplicates.groups import components, equal_pairs, members
from imagetune.data.duplicates.perceptual import near_pairs
from imagetune.data.findings import CODES, Finding, Severity, severity_of
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.records import Record
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.data import AuditConfig, DataConfig

__all__ = ["Audit", "Finding", "ImageFacts", "audit_catalog", "enforce_audit"]

_NOTES: dict[str, tuple[Severity, str, str, str]] = {
    "corrupt-image": (
        "warning",
        "{count} with corruption inside, which the decoder read around",
        "parts of the image may be grey or shifted; it is used as it is",
        "look at it, and restore it from the original if it is corrupted",
    ),
    "wrong-suffix": (
        "note",
        "{count} with a suffix that does not fit the content",
        "read by content, so nothing is lost",
        "",
    ),
    "many-frames": ("note", "{count} with several frames or pages", "only the first is used", ""),
}
_CONFLICTS = {
    "conflict": "no model can be right about it",
    "near-conflict": "one of the labels may be wrong",
}


@dataclass(frozen=True)
class Audit:
    """What one look at every image told.

    Attributes:
        facts: One for each record of the catalog, in its order.
        findings: Those of the catalog first, then those of the images, but for those that the recipe allows.
        families: For each record, the first record that is the same image or nearly so; itself when it is alone.
        allowed: Findings that ``data.audit.allow`` names.
        told: How well each thing that has nothing to do with the content tells the label, by the finding's code.
    """

    facts: tuple[ImageFacts, ...]
    findings: tuple[Finding, ...]
    families: tuple[int, ...]
    allowed: tuple[Finding, ...] = ()
    told: Mapping[str, Told] = field(default_factory=dict)

    @property
    def bad_paths(self) -> tuple[str, ...]:
        """The images that can't be used."""
        return tuple(dict.fromkeys(fact.path for fact in self.facts if fact.error is not None))

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each image by path; empty for one that can't be read."""
        return {fact.path: fact.sha256 for fact in self.facts}


def audit_catalog(catalog: Catalog, config: DataConfig) -> Audit:
    """Open every image once; one that has not changed since an earlier audit is not opened again.

    Args:
        catalog: What `read_catalog` returned.
        config: ``audit``, ``on_bad_image``, ``max_pixels`` and ``background`` are used; with ``cache: off`` nothing
            is taken from earlier audits or kept for later ones.

    Returns:
        Facts, findings and families. Findings with severity ``error`` are not raised here; see `enforce_audit`.
    """
    near = config.audit.near_duplicates
    paths = list(dict.fromkeys(record.path for record in catalog.records))
    inspected = inspect_images(
        paths, background=config.background, max_pixels=config.max_pixels, look=near, keep=config.cache != "off"
    )
    position = {path: index for index, path in enumerate(paths)}
    where = [position[record.path] for record in catalog.records]
    facts = tuple(inspected[index].facts for index in where)
    copies = components(len(paths), equal_pairs([one.facts.sha256 or None for one in inspected]))
    alike = components(len(paths), [*enumerate(copies), *(_near(inspected) if near else ())])
    first = {root: index for index, root in reversed(list(enumerate(alike[index] for index in where)))}
    families = tuple(first[alike[index]] for index in where)
    told = tell_labels(catalog, facts, families)
    found = (
        *catalog.findings,
        *_bad_images(facts, config),
        *_noted_images(facts),
        *placeholders(inspected, members(alike)),
        *odd_images(facts),
        *_conflicts(catalog, [copies[index] for index in where], families, config),
        *_leaks(catalog.records, facts, families, config),
        *_families(paths, inspected, copies, alike),
        *class_sizes(catalog.records, facts, catalog.rule),
        *shortcuts(told),
        *split_shift(catalog, facts, families),
    )
    findings, allowed = _ruled(found, config.audit)
    return Audit(facts, findings, families, allowed, told)


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
    shown = f": {shown}{more}" if shown else ""
    others = f"; also: {'; '.join(finding.title for finding in errors[1:])}" if errors[1:] else ""
    raise DataError(f"{first.title}{shown}{others}", hint=first.hint)


def _ruled(found: Iterable[Finding], rules: AuditConfig) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return what is told, with the severity that the recipe asks for, and what it allows."""
    told: list[Finding] = []
    allowed: list[Finding] = []
    for finding in found:
        if finding.code in rules.allow:
            allowed.append(finding)
        elif finding.code in rules.fail_on:
            way_out = f"take {finding.code} out of data.audit.fail_on"
            hint = f"{finding.hint}, or {way_out}" if finding.hint else way_out
            told.append(replace(finding, severity="error", hint=hint))
        else:
            told.append(finding)
    return tuple(told), tuple(allowed)


def _near(inspected: list[Inspection]) -> Iterator[tuple[int, int]]:
    return near_pairs([one.thumbnail for one in inspected])


def _bad_images(facts: Iterable[ImageFacts], config: DataConfig) -> Iterator[Finding]:
    bad = {fact.path: fact.error for fact in facts if fact.error is not None}
    if bad:
        stops = config.on_bad_image == "error"
        yield Finding(
            "bad-image",
            "error" if stops else "warning",
            f"{format_count(len(bad), 'image')} can't be used",
            "" if stops else "left out by on_bad_image: skip",
            tuple(bad),
            "repair or remove it, or set data.on_bad_image: skip" if stops else "repair or remove it",
            reasons=bad,
        )


def _noted_images(facts: Iterable[ImageFacts]) -> Iterator[Finding]:
    reasons: dict[str, dict[str, str]] = {}
    for fact in facts:
        for code, text in fact.notes:
            if fact.error is None:
                reasons.setdefault(code, {})[fact.path] = text
    for code, (severity, title, explanation, hint) in _NOTES.items():
        if found := reasons.get(code):
            words = title.format(count=format_count(len(found), "image"))
            yield Finding(code, severity, words, explanation, tuple(found), hint, reasons=found)


def _conflicts(
    catalog: Catalog, copies: Sequence[int], families: Sequence[int], config: DataConfig
) -> Iterator[Finding]:
    records = catalog.records
    groups = _of_several_labels(records, copies)
    if groups:
        title = f"{format_count(len(groups), 'image')} under more than one label"
        hint = "keep the right copy and remove the others"
        yield _conflict("conflict", severity_of(config.audit.on_conflict), title, hint, groups, records)
    if catalog.rule.task in ("multi_label", "regression"):
        return
    known = {copies[index] for group in groups for index in group}
    groups = [
        group for group in _of_several_labels(records, families) if not known.intersection(copies[at] for at in group)
    ]
    if groups:
        count = format_count(len(groups), "family", "families")
        title, hint = f"{count} of nearly identical images under more than one label", "look which label is right"
        yield _conflict("near-conflict", CODES["near-conflict"].severity, title, hint, groups, records)


def _of_several_labels(records: Sequence[Record], roots: Sequence[int]) -> list[list[int]]:
    return [group for group in members(roots) if len({records[index].label for index in group}) > 1]


def _conflict(
    code: str, severity: Severity, title: str, hint: str, groups: list[list[int]], records: Sequence[Record]
) -> Finding:
    reasons: dict[str, str] = {}
    for index in (index for group in groups for index in group):
        path, label = records[index].path, records[index].label
        reasons[path] = f"{reasons[path]}, {label}" if path in reasons else label
    together = tuple(_paths(records, group) for group in groups)
    return Finding(code, severity, title, _CONFLICTS[code], tuple(reasons), hint, together, reasons)


def _leaks(
    records: tuple[Record, ...], facts: tuple[ImageFacts, ...], alike: Sequence[int], config: DataConfig
) -> Iterator[Finding]:
    severity = severity_of(config.audit.on_leak)
    good = [index for index, fact in enumerate(facts) if fact.error is None]
    groups = _across([[good[at] for at in group] for group in members([alike[index] for index in good])], records)
    if groups:
        pairs = Counter(" and ".join(sorted({str(records[index].split) for index in group})) for group in groups)
        between = ", ".join(f"{count:,} between {splits}" for splits, count in pairs.items())
        yield _leak(
            "leak",
            f"{format_count(len(groups), 'image')} in more than one split, the same or nearly so ({between})",
            groups,
            records,
            severity,
        )
    named = [index for index in good if records[index].group is not None]
    roots = components(len(named), equal_pairs([records[index].group for index in named]))
    groups = _across([[named[at] for at in group] for group in members(roots)], records)
    if groups:
        names = format_list(str(records[group[0]].group) for group in groups)
        title = f"{format_count(len(groups), 'group')} in more than one split: {names}"
        yield _leak("group-leak", title, groups, records, severity)


def _across(groups: list[list[int]], records: tuple[Record, ...]) -> list[list[int]]:
    """Keep the groups that lie in two splits or more; an image without a split is not in any."""
    return [group for group in groups if len({records[index].split for index in group} - {None}) > 1]


def _leak(code: str, title: str, groups: list[list[int]], records: tuple[Record, ...], severity: Severity) -> Finding:
    return Finding(
        code,
        severity,
        title,
        "test metrics would be too good: the model has seen the image",
        tuple(dict.fromkeys(records[index].path for group in groups for index in group)),
        "keep each on one side, or set data.audit.on_leak: warn",
        tuple(_paths(records, group) for group in groups),
        {records[index].path: str(records[index].split) for group in groups for index in group},
    )


def _families(paths: list[str], inspected: list[Inspection], copies: list[int], alike: list[int]) -> Iterator[Finding]:
    readable = [index for index, one in enumerate(inspected) if one.facts.error is None]
    for code, roots, words in (
        ("identical-images", copies, "{families} of exact copies ({count})"),
        ("near-duplicates", alike, "{families} of nearly identical images ({count})"),
    ):
        families = [group for group in members([roots[index] for index in readable]) if len(group) > 1]
        groups = tuple(tuple(paths[readable[at]] for at in group) for group in families)
        if code == "near-duplicates":
            more = [len({copies[readable[at]] for at in group}) > 1 for group in families]
            groups = tuple(group for group, kept in zip(groups, more, strict=True) if kept)
        if groups:
            count = format_count(sum(map(len, groups)), "image")
            title = words.format(families=format_count(len(groups), "family", "families"), count=count)
            together = tuple(path for group in groups for path in group)
            explanation = "each family is kept on one side of a split that is made here"
            yield Finding(code, "note", title, explanation, together, groups=groups)


def _paths(records: Sequence[Record], group: list[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(records[index].path for index in group))

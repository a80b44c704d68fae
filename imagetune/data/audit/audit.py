"""Audit of a data set before training: unreadable images, leakage between splits, conflicting labels, duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from imagetune.core.text import format_count, format_list
from imagetune.data.audit.bit_depth import find_bit_depths
from imagetune.data.audit.class_sizes import check_class_sizes
from imagetune.data.audit.image_statistics import ImageStatistics, Inspection
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.audit.outliers import find_outlier_images, find_placeholders
from imagetune.data.audit.shift import find_split_shift
from imagetune.data.audit.shortcuts import ShortcutScore, find_shortcuts, measure_shortcuts
from imagetune.data.duplicates.groups import find_components, find_equal_pairs, is_duplicate_group, list_group_members
from imagetune.data.duplicates.perceptual import find_near_duplicate_pairs
from imagetune.data.findings import CODES, Finding, Severity, find_severity
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.missing import describe_missing
from imagetune.data.sources.records import Record
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import AuditConfig, DataConfig

__all__ = ["Audit", "Finding", "ImageStatistics", "audit_catalog", "enforce_audit"]

_NOTES: dict[str, tuple[Severity, str, str, str]] = {
    "corrupt-image": (
        "warning",
        "{count} decoded despite corruption in the file",
        "areas of the image may be grey or shifted; it is used as decoded",
        "compare it with the original and restore the file if needed",
    ),
    "wrong-suffix": (
        "note",
        "{count} with a file name suffix that doesn't match the content",
        "the content decides how a file is decoded, so nothing is lost",
        "",
    ),
    "many-frames": ("note", "{count} with several frames or pages", "only the first one is used", ""),
    "extra-band": (
        "note",
        "{count} with a fourth band that isn't transparency",
        "it is left out: models see red, green and blue",
        "",
    ),
}
_CONFLICTS = {
    "conflict": "no model can predict both labels correctly",
    "near-conflict": "one of the labels is probably wrong",
}


@dataclass(frozen=True)
class Audit:
    """Result of a data audit: statistics of every image, findings and near-duplicate groups.

    Attributes:
        statistics: The statistics of each record's image, in the catalog's order.
        findings: Findings about the source first, then about the images; without those that the recipe allows.
        duplicate_groups: The near-duplicate group of each record, named by the position of its first record; a record
            without near-duplicates is its own group.
        allowed: Findings whose codes are in ``data.audit.allow``.
        shortcuts: How well the label can be predicted from each property that isn't image content, by finding code.
    """

    statistics: tuple[ImageStatistics, ...]
    findings: tuple[Finding, ...]
    duplicate_groups: tuple[int, ...]
    allowed: tuple[Finding, ...] = ()
    shortcuts: Mapping[str, ShortcutScore] = field(default_factory=dict)

    @property
    def bad_paths(self) -> tuple[str, ...]:
        """Paths of the images that can't be decoded, each once."""
        return tuple(dict.fromkeys(image.path for image in self.statistics if image.error is not None))

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each image by path, hexadecimal; "" for a file that can't be read."""
        return {image.path: image.sha256 for image in self.statistics}


def audit_catalog(catalog: Catalog, config: DataConfig) -> Audit:
    """Return the audit of a catalog: every image is opened once, and not again while its file stays unchanged.

    Args:
        catalog: What `read_catalog` returned.
        config: ``audit``, ``on_bad_image``, ``max_pixels`` and ``background`` are used; with ``cache: off`` no image
            statistics are taken from earlier audits or kept for later ones.

    Returns:
        Image statistics, findings and near-duplicate groups. Findings with severity ``error`` are not raised here: a
        caller that only reports them must see all. See `enforce_audit`.
    """
    near = config.audit.near_duplicates
    # A table may name one file in several rows; it is opened once.
    paths = list(dict.fromkeys(record.path for record in catalog.records))
    inspected = inspect_images(
        paths, background=config.background, max_pixels=config.max_pixels, descriptors=near, keep=config.cache != "off"
    )
    position = {path: index for index, path in enumerate(paths)}
    where = [position[record.path] for record in catalog.records]
    statistics = tuple(inspected[index].statistics for index in where)
    # Files that can't be read have no hash, and are not copies of each other for that.
    copies = find_components(len(paths), find_equal_pairs([one.statistics.sha256 or None for one in inspected]))
    alike = find_components(len(paths), [*enumerate(copies), *(_find_near_pairs(inspected) if near else ())])
    # Records of one file have one group, which is named by the first of its records, not of its paths.
    first = {root: index for index, root in reversed(list(enumerate(alike[index] for index in where)))}
    duplicate_groups = tuple(first[alike[index]] for index in where)
    shortcuts = measure_shortcuts(catalog, statistics, duplicate_groups)
    found = (
        *catalog.findings,
        *_find_bad_images(statistics, catalog, config),
        *_find_noted_images(statistics),
        *find_bit_depths(statistics, config.bit_depth),
        *find_placeholders(inspected, list_group_members(alike)),
        *find_outlier_images(statistics),
        *_find_conflicts(catalog, [copies[index] for index in where], duplicate_groups, config),
        *_find_leaks(catalog.records, statistics, duplicate_groups, config),
        *_find_copies(paths, inspected, copies, alike),
        *check_class_sizes(catalog.records, statistics, catalog.rule),
        *find_shortcuts(shortcuts),
        *find_split_shift(catalog, statistics, duplicate_groups),
    )
    findings, allowed = _apply_rules(found, config.audit)
    return Audit(statistics, findings, duplicate_groups, allowed, shortcuts)


def enforce_audit(audit: Audit) -> None:
    """Raise the findings of severity ``error`` as one exception.

    Raises:
        DataError: The first of them in full, and the titles of the others.
    """
    errors = [finding for finding in audit.findings if finding.severity == "error"]
    if not errors:
        return
    first = errors[0]
    # The message is a single line for a log, so it names only some paths; `imagetune data check` lists all.
    shown = ", ".join(f"{path} ({first.reasons[path]})" if path in first.reasons else path for path in first.paths[:3])
    more = f" and {len(first.paths) - 3:,} more" if len(first.paths) > 3 else ""
    shown = f": {shown}{more}" if shown else ""
    others = f"; also: {'; '.join(finding.title for finding in errors[1:])}" if errors[1:] else ""
    raise DataError(f"{first.title}{shown}{others}", hint=first.hint)


def _apply_rules(found: Iterable[Finding], rules: AuditConfig) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Return the findings to report, with the severity that the recipe asks for, and those that it allows."""
    reported: list[Finding] = []
    allowed: list[Finding] = []
    for finding in found:
        # `allow` wins over `fail_on`: it names what was reviewed in this data set; `fail_on` may be a general rule.
        if finding.code in rules.allow:
            allowed.append(finding)
        elif finding.code in rules.fail_on:
            remedy = f"remove {finding.code} from data.audit.fail_on"
            hint = f"{finding.hint}, or {remedy}" if finding.hint else remedy
            reported.append(replace(finding, severity="error", hint=hint))
        else:
            reported.append(finding)
    return tuple(reported), tuple(allowed)


def _find_near_pairs(inspected: list[Inspection]) -> Iterator[tuple[int, int]]:
    return find_near_duplicate_pairs([one.thumbnail for one in inspected])


def _find_bad_images(statistics: Sequence[ImageStatistics], catalog: Catalog, config: DataConfig) -> Iterator[Finding]:
    bad = {image.path: image.error for image in statistics if image.error is not None}
    if not bad:
        return
    stops = config.on_bad_image == "error"
    if all(image.error is not None for image in statistics):
        where, remedy = describe_missing([*bad], catalog.root)
        title = f"not one of {format_count(len(bad), 'image')} can be used" + (f"; {where}" if where else "")
        hint = remedy or "repair the files, or correct the paths of the table"
        yield Finding("bad-image", "error", title, "nothing can be trained", tuple(bad), hint, reasons=bad)
        return
    yield Finding(
        "bad-image",
        "error" if stops else "warning",
        f"{format_count(len(bad), 'image')} can't be used",
        "" if stops else "left out, because data.on_bad_image is skip",
        tuple(bad),
        "repair or remove the files, or set data.on_bad_image: skip" if stops else "repair or remove the files",
        reasons=bad,
    )


def _find_noted_images(statistics: Iterable[ImageStatistics]) -> Iterator[Finding]:
    reasons: dict[str, dict[str, str]] = {}
    for image in statistics:
        for code, text in image.notes:
            if image.error is None:
                reasons.setdefault(code, {})[image.path] = text
    for code, (severity, title, explanation, hint) in _NOTES.items():
        if found := reasons.get(code):
            words = title.format(count=format_count(len(found), "image"))
            yield Finding(code, severity, words, explanation, tuple(found), hint, reasons=found)


def _find_conflicts(
    catalog: Catalog, copies: Sequence[int], duplicate_groups: Sequence[int], config: DataConfig
) -> Iterator[Finding]:
    records = catalog.records
    groups = _find_groups_of_several_labels(records, copies)
    if groups:
        title = f"{format_count(len(groups), 'image')} under more than one label"
        hint = "keep the copy with the correct label and remove the others"
        yield _build_conflict("conflict", find_severity(config.audit.on_conflict), title, hint, groups, records)
    # Near-duplicates may rightly differ in one of several labels, or a little in a number.
    if catalog.rule.task in ("multi_label", "regression"):
        return
    # A group that also contains conflicting exact copies has its finding already.
    known = {copies[index] for group in groups for index in group}
    groups = [
        group
        for group in _find_groups_of_several_labels(records, duplicate_groups)
        if not known.intersection(copies[at] for at in group)
    ]
    if groups:
        title = f"{format_count(len(groups), 'near-duplicate group')} under more than one label"
        hint = "check which label is correct"
        yield _build_conflict("near-conflict", CODES["near-conflict"].severity, title, hint, groups, records)


def _find_groups_of_several_labels(records: Sequence[Record], roots: Sequence[int]) -> list[list[int]]:
    return [group for group in list_group_members(roots) if len({records[index].label for index in group}) > 1]


def _build_conflict(
    code: str, severity: Severity, title: str, hint: str, groups: list[list[int]], records: Sequence[Record]
) -> Finding:
    reasons: dict[str, str] = {}
    for index in (index for group in groups for index in group):
        path, label = records[index].path, records[index].label
        reasons[path] = f"{reasons[path]}, {label}" if path in reasons else label
    together = tuple(_paths(records, group) for group in groups)
    return Finding(code, severity, title, _CONFLICTS[code], tuple(reasons), hint, together, reasons)


def _find_leaks(
    records: tuple[Record, ...], statistics: tuple[ImageStatistics, ...], alike: Sequence[int], config: DataConfig
) -> Iterator[Finding]:
    severity = find_severity(config.audit.on_leak)
    # An unusable image is left out of every split, so it can't leak.
    good = [index for index, image in enumerate(statistics) if image.error is None]
    groups = _keep_groups_across_splits(
        [[good[at] for at in group] for group in list_group_members([alike[index] for index in good])], records
    )
    if groups:
        pairs = Counter(" and ".join(sorted({str(records[index].split) for index in group})) for group in groups)
        between = ", ".join(f"{count:,} between {splits}" for splits, count in pairs.items())
        yield _build_leak(
            "leak",
            f"{format_count(len(groups), 'image')} in more than one split, as copies or near-duplicates ({between})",
            groups,
            records,
            severity,
        )
    # The table of a run names near-duplicates as groups: they are the leak from above.
    named = [index for index in good if (name := records[index].group) and not is_duplicate_group(name)]
    roots = find_components(len(named), find_equal_pairs([records[index].group for index in named]))
    groups = _keep_groups_across_splits([[named[at] for at in group] for group in list_group_members(roots)], records)
    if groups:
        names = format_list(str(records[group[0]].group) for group in groups)
        title = f"{format_count(len(groups), 'group')} in more than one split: {names}"
        yield _build_leak("group-leak", title, groups, records, severity)


def _keep_groups_across_splits(groups: list[list[int]], records: tuple[Record, ...]) -> list[list[int]]:
    """Keep the groups that lie in two splits or more; an image without a split is not in any."""
    return [group for group in groups if len({records[index].split for index in group} - {None}) > 1]


def _build_leak(
    code: str, title: str, groups: list[list[int]], records: tuple[Record, ...], severity: Severity
) -> Finding:
    return Finding(
        code,
        severity,
        title,
        "test metrics would be too optimistic: the model has seen the image in training",
        tuple(dict.fromkeys(records[index].path for group in groups for index in group)),
        "keep each one in a single split, or set data.audit.on_leak: warn",
        tuple(_paths(records, group) for group in groups),
        {records[index].path: str(records[index].split) for group in groups for index in group},
    )


def _find_copies(
    paths: list[str], inspected: list[Inspection], copies: list[int], alike: list[int]
) -> Iterator[Finding]:
    readable = [index for index, one in enumerate(inspected) if one.statistics.error is None]
    for code, roots, words in (
        ("identical-images", copies, "{groups} of exact copies ({count})"),
        ("near-duplicates", alike, "{groups} of near-duplicates ({count})"),
    ):
        duplicate_groups = [
            group for group in list_group_members([roots[index] for index in readable]) if len(group) > 1
        ]
        groups = tuple(tuple(paths[readable[at]] for at in group) for group in duplicate_groups)
        # A group of nothing but exact copies is reported as identical images already.
        if code == "near-duplicates":
            more = [len({copies[readable[at]] for at in group}) > 1 for group in duplicate_groups]
            groups = tuple(group for group, kept in zip(groups, more, strict=True) if kept)
        if groups:
            count = format_count(sum(map(len, groups)), "image")
            title = words.format(groups=format_count(len(groups), "group"), count=count)
            together = tuple(path for group in groups for path in group)
            explanation = "the splits that imagetune makes keep each group in one split"
            yield Finding(code, "note", title, explanation, together, groups=groups)


def _paths(records: Sequence[Record], group: list[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(records[index].path for index in group))

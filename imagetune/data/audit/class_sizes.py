"""Class sizes: classes with too few images, and class imbalance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from imagetune.core.text import format_count, format_list
from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    from imagetune.data.audit.image_statistics import ImageStatistics
    from imagetune.data.sources.labels import LabelRule
    from imagetune.data.sources.records import Record

# With a fifth for the test, fewer leave one or two test images: a single error then moves the class's recall by half.
TINY = 10
LARGE_RATIO = 10


def check_class_sizes(
    records: Sequence[Record], statistics: Sequence[ImageStatistics], rule: LabelRule
) -> Iterator[Finding]:
    """Yield findings for classes with fewer than ten usable images, and for an imbalance of ten to one and more.

    Args:
        records: The records of the catalog.
        statistics: The image statistics of each record.
        rule: How labels are read; regression has no classes.
    """
    if rule.task == "regression":
        return
    usable = [record for record, image in zip(records, statistics, strict=True) if image.error is None]
    everything = rule.counts(record.label for record in records)
    counts = rule.counts(record.label for record in usable)
    sizes = sorted((counts[label], label) for label in everything)
    if tiny := {label: count for count, label in sizes if count < TINY}:
        yield _build_tiny_class(tiny, usable, rule)
    if len(sizes) < 2:
        return
    (low, smallest), (high, largest) = sizes[0], sizes[-1]
    # All images of the smallest class may be unusable.
    if high >= LARGE_RATIO * max(low, 1):
        yield Finding(
            "class-imbalance",
            CODES["class-imbalance"].severity,
            f"{largest!r} has {high / max(low, 1):,.0f} times the images of {smallest!r} ({high:,} and {low:,})",
            "accuracy hides the errors in small classes, and unweighted training favours large ones",
            hint="judge by balanced accuracy, and try train.class_weights: balanced or train.sampling: balanced",
            metrics={"largest": high, "smallest": low},
        )


def _build_tiny_class(tiny: dict[str, int], usable: Sequence[Record], rule: LabelRule) -> Finding:
    reasons = {record.path: record.label for record in usable if any(name in tiny for name in rule.names(record.label))}
    listed = format_list(f"{label} ({count})" for label, count in tiny.items())
    return Finding(
        "tiny-class",
        CODES["tiny-class"].severity,
        f"{format_count(len(tiny), 'class', 'classes')} with fewer than {TINY} images: {listed}",
        "too few to learn from, and too few to measure anything in the test",
        tuple(reasons),
        "add images, merge it with another class, or leave it out of data.classes",
        reasons=reasons,
        metrics=dict(tiny),
    )

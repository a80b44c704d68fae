"""Classes with too few images, and classes of very different size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from imagetune.core.text import format_count, format_list
from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    from imagetune.data.audit.image_statistics import ImageFacts
    from imagetune.data.sources.labels import LabelRule
    from imagetune.data.sources.records import Record

# With a fifth for the test, fewer give one or two test images: right or wrong moves the class by half or all.
TINY = 10
LARGE_RATIO = 10


def class_sizes(records: Sequence[Record], facts: Sequence[ImageFacts], rule: LabelRule) -> Iterator[Finding]:
    """Yield the classes with fewer than ten usable images, and the ratio of the largest to the smallest from ten on.

    Args:
        records: Of the catalog.
        facts: One a record.
        rule: How labels are read; regression has no classes.
    """
    if rule.task == "regression":
        return
    usable = [record for record, fact in zip(records, facts, strict=True) if fact.error is None]
    everything = rule.counts(record.label for record in records)
    counts = rule.counts(record.label for record in usable)
    sizes = sorted((counts[label], label) for label in everything)
    if tiny := {label: count for count, label in sizes if count < TINY}:
        yield _tiny(tiny, usable, rule)
    if len(sizes) < 2:
        return
    (least, smallest), (most, largest) = sizes[0], sizes[-1]
    if most >= LARGE_RATIO * max(least, 1):
        yield Finding(
            "class-imbalance",
            CODES["class-imbalance"].severity,
            f"{largest!r} has {most / max(least, 1):,.0f} times the images of {smallest!r} ({most:,} and {least:,})",
            "accuracy hides how the small classes fare, and plain training favours the large ones",
            hint="judge by balanced accuracy; train.class_weights: balanced or train.sampling: balanced may help",
            metrics={"largest": most, "smallest": least},
        )


def _tiny(tiny: dict[str, int], usable: Sequence[Record], rule: LabelRule) -> Finding:
    reasons = {record.path: record.label for record in usable if any(name in tiny for name in rule.names(record.label))}
    told = format_list(f"{label} ({count})" for label, count in tiny.items())
    return Finding(
        "tiny-class",
        CODES["tiny-class"].severity,
        f"{format_count(len(tiny), 'class', 'classes')} with fewer than {TINY} images: {told}",
        "too few to learn from, and a test of one or two images tells nothing",
        tuple(reasons),
        "add images, join it with another class, or leave it out by data.classes",
        reasons=reasons,
        metrics=dict(tiny),
    )

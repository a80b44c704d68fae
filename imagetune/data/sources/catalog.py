"""All images of a source, and what was noticed when it was read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagetune.data.findings import Finding
from imagetune.data.sources.labels import ONE_CLASS, LabelRule
from imagetune.data.sources.records import Record


@dataclass(frozen=True)
class Catalog:
    """All images of a source.

    Attributes:
        root: The folder that paths are told relative to.
        records: In a stable order: of the table's rows, or by class and name.
        findings: What was left out or looks odd.
        rule: How the labels are read.
    """

    root: Path
    records: tuple[Record, ...]
    findings: tuple[Finding, ...] = ()
    rule: LabelRule = ONE_CLASS

    @property
    def notes(self) -> tuple[str, ...]:
        """The findings as lines of text."""
        return tuple(finding.title for finding in self.findings)

    @property
    def split_given(self) -> bool:
        """Whether the source itself says which images are for training, validation and test."""
        return any(record.split for record in self.records)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted; for regression the name of the number."""
        return tuple(sorted(self.rule.counts(record.label for record in self.records)))
